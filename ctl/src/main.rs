//! The binary `paxosctl`; everything is in the library beside it.

fn main() -> std::process::ExitCode {
    ctl::main()
}

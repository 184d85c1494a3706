//! Where child processes come from.
//!
//! `PR_SET_PDEATHSIG` makes the kernel kill a child when its parent dies, even by SIGKILL. "Parent"
//! means the *thread* that made the child, so children are made by one thread that lives as long as
//! this process; a worker of the runtime might end earlier and take the node with it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts the program in a process group of its own, so that Ctrl-C on the terminal reaches us and
/// not it, and tied to our life.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    static NURSERY: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let nursery = NURSERY.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::Builder::new()
            .name("nursery".to_owned())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    // Whoever asked may have gone; then the child is reaped by nobody, but killed
                    // with us.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread can be made");
        orders
    });
    let parent = getpid();
    command.process_group(0);
    // SAFETY: both calls are async-signal-safe system calls; nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the line above.
            match getppid() == Some(parent) {
                true => Ok(()),
                false => Err(io::Error::from_raw_os_error(3)),
            }
        });
    }
    let (answer, child) = mpsc::channel();
    nursery.send((command, answer)).expect("the nursery lives as long as the process");
    child.recv().expect("the nursery answers every order")
}

//! Takes the lab down when the test dies, however it dies: a process of its own waits for the end of
//! a pipe that only the test holds open.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::support::Site;

pub(crate) struct Guardian(Child);

impl Guardian {
    pub(crate) fn of(site: &Site) -> Guardian {
        let mut guardian = Command::new("/bin/sh");
        guardian.args(["-c", "cat >/dev/null; exec \"$@\"", "guardian"]);
        guardian.arg(env!("CARGO_BIN_EXE_paxosctl")).args(["lab", "down", "--name"]);
        guardian.arg(site.lab.name()).arg("--dir");
        guardian.arg(site.lab.dir().parent().expect("labs have a folder"));
        guardian.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A Ctrl-C ends the test, not its guardian.
        guardian.process_group(0);
        Guardian(guardian.spawn().expect("start a guardian"))
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // Closes the pipe, too. The lab that it takes down is nobody's any more.
        let _ = self.0.wait();
    }
}

//! A network of hosts: a bridge in a network namespace that nothing else is in.
//! Addresses are the hosts'.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use crate::command::{Ran, run};

/// The bridge that hosts are plugged into.
pub(crate) const BRIDGE: &str = "br0";

/// Ends with its namespace, which ends with the process that holds it: with this handle, or with the thread
/// that made it.
#[derive(Debug)]
pub struct Network {
    holder: Child,
}

impl Network {
    /// A network without hosts.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it starts a process")]
    pub fn new() -> Self {
        let script = format!(
            "ip link add {BRIDGE} type bridge; ip link set {BRIDGE} up; echo up; exec sleep infinity"
        );
        let mut holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-euc", &script])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the holder of the network");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("hear from the holder of the network");
        assert_eq!(line, "up\n", "the bridge was not made");
        Self { holder }
    }

    /// Where to find the namespace.
    pub(crate) fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// Runs a shell command at the bridge, between the hosts.
    #[must_use]
    pub fn sh(&self, script: &str) -> Ran {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace())).args(["sh", "-euc", script]);
        run(&mut command, script)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ended_already = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}

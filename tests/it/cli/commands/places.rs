//! Where `cortex` looks for the daemon: the flag, the variable, the configuration with its fragments.
//! Leaves the usual places to `paths`, and everything that is said there to the other tests.

use std::fs;

use super::answering;
use super::fake_daemon::FakeDaemon;
use super::tool::{check_exit, cortex, run, stderr, stdout};

#[test]
fn the_socket_is_that_of_the_flag_then_the_variable_then_the_configuration() {
    let daemons: Vec<FakeDaemon> =
        ["flag", "variable", "config"].map(|name| answering(name.into())).into();
    let config = daemons[2].directory().join("cortexd.toml");
    let other_keys = "max_message = \"1MiB\"\n[mesh]\nnode = \"home\"\n";
    fs::write(&config, format!("socket = {:?}\n{other_keys}", daemons[2].socket())).expect("write");

    let mut command = cortex();
    command.args(["ping", "--config"]).arg(&config);
    assert_eq!(stdout(&run(&mut command)), "\"config\"\n");
    command.env("CORTEX_SOCKET", daemons[1].socket());
    assert_eq!(stdout(&run(&mut command)), "\"variable\"\n");
    command.arg("--socket").arg(daemons[0].socket());
    assert_eq!(stdout(&run(&mut command)), "\"flag\"\n");
}

#[test]
fn a_socket_in_a_fragment_of_the_configuration_is_found_as_the_daemon_finds_it() {
    let daemon = answering("pong".into());
    let config = daemon.directory().join("cortexd.toml");
    fs::write(&config, "socket = '/nowhere'\n").expect("write");
    fs::create_dir(daemon.directory().join("cortexd.toml.d")).expect("make a directory");
    let fragment = daemon.directory().join("cortexd.toml.d/10-socket.toml");
    fs::write(fragment, format!("socket = {:?}\n", daemon.socket())).expect("write");
    let output = run(cortex().args(["ping", "--config"]).arg(&config));
    assert_eq!(stdout(&output), "\"pong\"\n", "{}", stderr(&output));
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().expect("make a directory");
    let config = directory.path().join("cortexd.toml");
    for contents in [None, Some("socket = "), Some("socket = 7")] {
        if let Some(contents) = contents {
            fs::write(&config, contents).expect("write");
        }
        let output = run(cortex().args(["ping", "--config"]).arg(&config));
        check_exit(&output, 1);
        assert!(stderr(&output).contains("cortexd.toml"), "{}", stderr(&output));
    }
}

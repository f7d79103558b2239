//! The walk of README.md over several machines, word for word, at the pace of somebody who reads what is printed.

use system_tests::{Running, User, package};

use super::{Mesh, asked, parsed};

/// What stands before the commands.
const WALK: &str = "Several machines make a mesh";

/// holds M1, I2, I3, N2, R5
#[test]
fn the_walk_of_the_readme_works_as_it_is_written() {
    let readme = std::fs::read_to_string(package::source().join("README.md")).expect("a README");
    let (_, walk) = readme.split_once(WALK).expect("the walk");
    let walk = walk.split("```").nth(1).expect("its commands").trim_start_matches("console\n");

    let mesh = Mesh::of_nobody();
    for host in [&mesh.home, &mesh.office] {
        host.sh("echo '10.99.0.1 home.lan' >>/etc/hosts");
    }
    let (mut code, mut token) = (String::new(), String::new());
    let mut invitation: Option<Running> = None;
    let mut commands = 0;
    for line in walk.lines() {
        let (prompt, command) = line.split_once(['#', '$']).expect("a prompt");
        // What is said of a command stands apart from it.
        let command = command.split("  #").next().unwrap_or_default().trim();
        let command = command.replace("CODE", &code).replace("TOKEN", &token);
        let (user, host) = prompt.split_once('@').expect("who, and where");
        let user = if user == "root" { User::Root } else { User::Ann };
        let host = if host == "home" { &mesh.home } else { &mesh.office };
        if user == User::Ann && token.is_empty() {
            mesh.wait_for_link();
        }
        if command.contains(" mesh invite ") {
            let mut waiting = host.begin(user, &command);
            parsed(&waiting.line())["code"].as_str().expect("a code").clone_into(&mut code);
            invitation = Some(waiting);
        } else {
            let said = host.sh_as(user, &command);
            if command.contains(" identity register ") {
                parsed(&said)["token"].as_str().expect("a token").clone_into(&mut token);
            }
        }
        if command.contains(" mesh join ") {
            invitation.take().expect("it was invited").end().expect_ok();
        }
        commands += 1;
    }
    assert!(commands > 10, "{walk}");
    let kept = asked(&mesh.home, User::Ann, "cortex get @notes note-7");
    assert_eq!(kept["id"], "note-7", "what ann wrote at the office is at home");
}

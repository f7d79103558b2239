//! The commands that need no second machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli::mesh::machine::{Machine, load};
use crate::cli::mesh::tool::{check_exit, run, stderr};

fn mode(machine: &Machine, name: &str) -> u32 {
    fs::metadata(machine.path(name)).expect(name).permissions().mode() & 0o777
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output();
    let output = output.expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn shown(machine: &Machine, certificate: &str) -> String {
    let path = machine.path(certificate);
    openssl(&["x509", "-in", path.to_str().expect("UTF-8"), "-noout", "-text"])
}

/// holds M3
#[test]
fn a_ca_is_made_once_with_a_key_for_its_owner_alone() {
    let machine = Machine::new();
    let made = machine.good(&["init-ca"]);
    assert_eq!(mode(&machine, "state/ca/ca.key"), 0o600);
    assert_eq!(mode(&machine, "state/ca"), 0o700);
    let text = shown(&machine, "state/ca/ca.crt");
    for part in [
        "CA:TRUE, pathlen:0",
        "Certificate Sign, CRL Sign",
        "id-ecPublicKey",
        "prime256v1",
        &format!("URI:cortex://{}", made["mesh"].as_str().expect("text")),
    ] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    let list = machine.path("state/ca/crl.pem");
    let list = openssl(&["crl", "-in", list.to_str().expect("UTF-8"), "-noout", "-text"]);
    assert!(list.contains("No Revoked Certificates."), "{list}");

    let key = machine.read("state/ca/ca.key");
    machine.refused(&["init-ca"], 1, &["there is a CA in", "--force"]);
    assert_eq!(machine.read("state/ca/ca.key"), key);
    let another = machine.good(&["init-ca", "--force"]);
    assert_ne!(another["mesh"], made["mesh"]);
    assert_ne!(machine.read("state/ca/ca.key"), key);
}

/// holds M3
#[test]
fn a_node_gets_a_key_and_a_certificate_with_its_names_and_both_usages() {
    let machine = Machine::new();
    let dir = machine.path("elsewhere");
    let dir = dir.to_str().expect("UTF-8");
    let mesh = machine.good(&["init-ca", "--output", dir])["mesh"].clone();
    for (node, host, san) in [
        ("home", "home.lan", "DNS:home, DNS:home.lan"),
        ("office", "192.168.1.7", "DNS:office, IP Address:192.168.1.7"),
        ("garden", "fd00::7", "DNS:garden, IP Address:FD00:0:0:0:0:0:0:7"),
        ("attic", "attic", "DNS:attic"),
    ] {
        let made = machine.good(&["add-node", node, host, "--ca-dir", dir]);
        let certificate = format!("elsewhere/nodes/{node}/node.crt");
        let text = shown(&machine, &certificate);
        let uri = format!("{san}, URI:cortex://{}/{node}\n", mesh.as_str().expect("text"));
        let common_name = format!("Subject: CN = {node}\n");
        for part in [
            uri.as_str(),
            &common_name,
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "Digital Signature",
            "CA:FALSE",
        ] {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
        assert_eq!(mode(&machine, &format!("elsewhere/nodes/{node}/node.key")), 0o600);
        let credentials = load(&machine.path(&format!("elsewhere/nodes/{node}")), node);
        assert_eq!(credentials.mesh().to_string(), mesh.as_str().expect("text"));
        let serial = made["serial"].as_str().expect("text");
        assert_eq!(serial.len(), 32, "128 bits: {serial}");
    }
}

/// holds M3
#[test]
fn a_node_is_refused_without_a_ca_with_a_bad_name_or_host_and_twice() {
    let machine = Machine::new();
    machine.refused(&["add-node", "home", "home.lan"], 10, &["there is no CA in", "init-ca"]);
    machine.good(&["init-ca"]);
    for bad in ["Home", "a.b", "-a", "a_b", ""] {
        machine.refused(&["add-node", "--", bad, "home.lan"], 2, &["a node's name is made of"]);
    }
    machine.refused(&["add-node", "12", "home.lan"], 1, &["digits alone"]);
    for bad in ["a b", "", "home..lan", "http://home"] {
        machine.refused(&["add-node", "home", bad], 1, &["neither a DNS name nor an address"]);
    }
    let first = machine.good(&["add-node", "home", "home.lan"]);
    machine.refused(&["add-node", "home", "home.lan"], 1, &["has a certificate already", "renew"]);
    for host in ["home", "Home"] {
        machine.refused(&["add-node", "office", host], 1, &["the name of another node"]);
    }
    let second = machine.good(&["add-node", "home", "home.lan", "--force"]);
    assert_ne!(first["serial"], second["serial"]);
    load(&machine.path("state/ca/nodes/home"), "home");
    machine.good(&["revoke-certificate", "home"]);
    // The files of the lost node are still there, and are not overwritten.
    machine.refused(&["add-node", "home", "home.lan"], 1, &["is there already", "--force"]);
    machine.good(&["add-node", "home", "home.lan", "--force"]);
}

/// holds M3: the nodes would refuse the other's certificate from then on, as one that names two of them.
#[test]
fn no_node_gets_the_name_that_anothers_certificate_has_as_its_host() {
    let machine = Machine::new();
    machine.good(&["init-ca"]);
    machine.good(&["add-node", "office", "Attic"]);
    let expected = ["`office` has it as its host", "add-node --force office"];
    machine.refused(&["add-node", "attic", "attic.lan"], 1, &expected);
    machine.refused(&["add-node", "attic", "attic.lan", "--force"], 1, &expected);
    machine.good(&["renew", "office"]);
    machine.good(&["revoke-certificate", "office"]);
    machine.good(&["add-node", "attic", "attic.lan"]);
}

/// holds M3
#[test]
fn a_request_by_openssl_is_signed_for_its_key_and_nothing_else_that_it_asks() {
    let machine = Machine::new();
    machine.good(&["init-ca"]);
    let (request, key) = (machine.path("csr.pem"), machine.path("own.key"));
    let (request, key) = (request.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"));
    openssl(&[
        "req",
        "-new",
        "-nodes",
        "-newkey",
        "ed25519",
        "-subj",
        "/CN=root/O=Evil",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "subjectAltName=DNS:home",
        "-keyout",
        key,
        "-out",
        request,
    ]);
    let signed = machine.good(&["sign", request, "office", "office.lan"]);
    fs::write(machine.path("office.crt"), signed["certificate"].as_str().expect("PEM"))
        .expect("write");
    let text = shown(&machine, "office.crt");
    for part in ["CN = office\n", "CA:FALSE", "DNS:office, DNS:office.lan, URI:", "ED25519"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    for part in ["Evil", "CA:TRUE", "DNS:home"] {
        assert!(!text.contains(part), "{part:?} is in: {text}");
    }
    machine.refused(&["sign", request, "office", "office.lan"], 1, &["has a certificate already"]);
    machine.refused(&["sign", key, "garden", "garden.lan"], 1, &["no CERTIFICATE REQUEST"]);
    machine.refused(&["sign", "/nowhere", "garden", "garden.lan"], 1, &["cannot read /nowhere"]);
}

#[test]
fn a_request_that_is_not_signed_by_its_key_is_refused() {
    let machine = Machine::new();
    machine.good(&["init-ca"]);
    let (request, key, der) = (machine.path("csr.pem"), machine.path("k"), machine.path("csr.der"));
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    openssl(&[
        "req",
        "-new",
        "-nodes",
        "-newkey",
        "ed25519",
        "-subj",
        "/CN=x",
        "-keyout",
        &text(&key),
        "-outform",
        "DER",
        "-out",
        &text(&der),
    ]);
    let mut bytes = fs::read(&der).expect("read");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&der, bytes).expect("write");
    openssl(&["req", "-inform", "DER", "-in", &text(&der), "-out", &text(&request)]);
    machine.refused(&["sign", &text(&request), "office", "o.lan"], 1, &["not signed by the key"]);
}

/// holds M3, E1
#[test]
fn a_request_with_a_key_that_is_too_short_is_refused_by_its_size() {
    let machine = Machine::new();
    machine.good(&["init-ca"]);
    let (request, key) = (machine.path("csr.pem"), machine.path("k"));
    let (request, key) = (request.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"));
    let rsa = ["req", "-new", "-nodes", "-newkey", "rsa:1024", "-subj", "/CN=x"];
    openssl(&[&rsa[..], &["-keyout", key, "-out", request]].concat());
    let why = ["RSA key has 1024 bits", "2048 at least"];
    machine.refused(&["sign", request, "office", "o.lan"], 1, &why);
}

/// holds M3, E1
#[test]
fn certificates_are_listed_renewed_and_revoked() {
    let machine = Machine::first();
    machine.good(&["add-node", "office", "office.lan"]);
    let before = machine.credentials("home");
    let renewed = machine.good(&["renew", "home"]);
    let after = machine.credentials("home");
    assert_ne!(before.certificate(), after.certificate(), "this node's own is put in its place");
    assert_eq!(before.key_hash(), after.key_hash(), "the key stays");

    let listed = machine.good(&["certificates"]);
    let listed = listed.as_array().expect("a list");
    let names: Vec<_> = listed.iter().map(|one| one["node"].as_str().expect("text")).collect();
    assert_eq!(names, ["home", "office", "home"]);
    assert!(listed.iter().all(|one| one["good"] == true && one["revoked"] == Value::Null));
    let serials: Vec<_> = listed.iter().map(|one| one["serial"].as_str().expect("text")).collect();
    assert_eq!(renewed["serial"], serials[2]);
    assert_ne!(serials[0], serials[2]);

    machine.good(&["revoke-certificate", serials[0]]);
    machine.credentials("home"); // the renewed one is another
    machine.good(&["revoke-certificate", "office"]);
    let own = fs::read_to_string(machine.path("state/mesh/crl.pem")).expect("read");
    assert_eq!(own, machine.read("state/ca/crl.pem"), "this node's list is put in its place");
    let listed = machine.good(&["certificates"]);
    let good: Vec<_> =
        listed.as_array().expect("a list").iter().map(|one| one["good"].clone()).collect();
    assert_eq!(good, [false, false, true]);
    machine.refused(&["revoke-certificate", "garden"], 10, &["no certificate of `garden`"]);
    machine.refused(&["renew", "garden"], 10, &["no certificate of `garden`"]);
    machine.refused(&["renew", "office"], 10, &["no certificate of `office`"]);
}

/// holds M1
#[test]
fn the_first_node_has_credentials_and_a_configuration_at_once() {
    let machine = Machine::new();
    let made = machine.good(&["init", "home", "home.lan", "--port", "4812"]);
    let credentials = machine.credentials("home");
    assert_eq!(made["mesh"], credentials.mesh().to_string());
    let settings = machine.settings();
    assert_eq!(settings["node_name"].as_str(), Some("home"));
    assert_eq!(settings["listen"].as_str(), Some("[::]:4812"));
    for (key, file) in [
        ("ca_cert", "ca.crt"),
        ("node_cert", "node.crt"),
        ("node_key", "node.key"),
        ("crl", "crl.pem"),
    ] {
        let path = machine.path("state/mesh").join(file);
        assert_eq!(settings[key].as_str(), path.to_str(), "{key}");
    }
    assert_eq!(machine.nodes(), [("home".to_owned(), "home.lan".to_owned(), 4812)]);
    assert_eq!(mode(&machine, "cortex.toml.d/mesh.toml"), 0o644);

    let where_it_says_so = format!("in {}", machine.path("cortex.toml").display());
    machine.refused(
        &["init", "home", "home.lan"],
        1,
        &["the node `home` of a mesh already", &where_it_says_so],
    );
    fs::remove_file(machine.path("cortex.toml.d/mesh.toml")).expect("remove");
    machine.refused(&["init", "home", "home.lan"], 1, &["is there already", "earlier mesh"]);
}

#[test]
fn a_configuration_that_is_not_there_gets_no_fragment() {
    let machine = Machine::new();
    fs::remove_file(machine.path("cortex.toml")).expect("remove");
    machine.refused(&["init", "home", "home.lan"], 1, &["cannot read the configuration"]);
    assert!(!machine.path("state").exists(), "nothing was made");
}

#[test]
fn what_the_user_may_not_write_is_named_with_its_own_exit_status() {
    if nix::unistd::geteuid().is_root() {
        // Root may write anywhere but where nobody can: a file is no directory.
        let machine = Machine::new();
        fs::write(machine.path("state"), "").expect("write");
        machine.refused(&["init-ca"], 1, &["cannot make", "state"]);
        return;
    }
    let machine = Machine::new();
    fs::create_dir(machine.path("state")).expect("make a directory");
    fs::set_permissions(machine.path("state"), PermissionsExt::from_mode(0o500)).expect("shut it");
    let output = run(&mut machine.mesh(&["init-ca"]));
    check_exit(&output, 4);
    assert!(stderr(&output).contains("sudo"), "{}", stderr(&output));
}

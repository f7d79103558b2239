//! A node's own files: each way in which they can be wrong has its own text.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cortexd::pki::{Credentials, Files, Serial};

use crate::mesh::pki::lab::{
    EC, Lab, ListByOpenssl, YEAR_S, extensions, name, now, openssl, put, text,
};

const FAR: &str = "400101000000Z";

/// Asserts that the files are refused to the node `home` with a text in which all of these stand.
fn check_refused(files: &Files, at: u64, expected: &[&str]) {
    let error = Credentials::load(files, &name("home"), at).expect_err("refused").to_string();
    for part in expected {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

fn serial_of(certificate: &Path) -> String {
    let line = openssl(&["x509", "-in", &text(certificate), "-noout", "-serial"]);
    line.trim().strip_prefix("serial=").expect("a serial number").to_owned()
}

/// holds M1
#[test]
fn good_files_are_taken_and_say_who_this_is() {
    let mut lab = Lab::new();
    let files = lab.node("home");
    let credentials = Credentials::load(&files, &name("home"), now()).expect("good");
    assert_eq!(credentials.node(), &name("home"));
    assert_eq!(credentials.mesh(), lab.authority.mesh());
    let years = (credentials.not_after() - now()) as f64 / YEAR_S as f64;
    assert!((1.9..2.1).contains(&years), "{years} years");
    assert!(credentials.ca_not_after() > now() + 9 * YEAR_S);
    assert_eq!(credentials.crl_next_update(), credentials.ca_not_after());
}

/// holds M1
#[test]
fn a_missing_file_is_named() {
    let mut lab = Lab::new();
    let files = lab.node("home");
    for path in [&files.ca_cert, &files.node_cert, &files.node_key, &files.crl] {
        let kept = fs::read_to_string(path).expect("read");
        fs::remove_file(path).expect("remove");
        check_refused(&files, now(), &["is not there", &text(path)]);
        put(path, &kept);
    }
    Credentials::load(&files, &name("home"), now()).expect("good again");
}

/// holds M1
#[test]
fn a_file_without_pem_is_named() {
    let mut lab = Lab::new();
    let files = lab.node("home");
    for path in [&files.ca_cert, &files.node_cert, &files.node_key, &files.crl] {
        let kept = fs::read_to_string(path).expect("read");
        for nonsense in
            ["", "hello\n", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"]
        {
            put(path, nonsense);
            check_refused(&files, now(), &["in PEM", &text(path)]);
        }
        put(path, &kept);
    }
}

/// holds M1
#[test]
fn pem_around_anything_else_is_refused() {
    let mut lab = Lab::new();
    let files = lab.node("home");
    for (path, label) in [
        (&files.ca_cert, "CERTIFICATE"),
        (&files.node_cert, "CERTIFICATE"),
        (&files.crl, "X509 CRL"),
    ] {
        let kept = fs::read_to_string(path).expect("read");
        put(path, &format!("-----BEGIN {label}-----\nMAMCAQE=\n-----END {label}-----\n"));
        check_refused(&files, now(), &["cannot be read as X.509"]);
        put(path, &kept);
    }
}

/// holds M1
#[test]
fn a_key_of_another_certificate_is_refused() {
    let mut lab = Lab::new();
    let (files, other) = (lab.node("home"), lab.node("office"));
    fs::copy(&other.node_key, &files.node_key).expect("copy");
    check_refused(&files, now(), &["does not belong to the certificate"]);
}

/// holds M1
#[test]
fn a_key_that_others_may_read_is_refused() {
    let mut lab = Lab::new();
    let files = lab.node("home");
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&files.node_key, PermissionsExt::from_mode(mode)).expect("open it");
        check_refused(&files, now(), &["may be read by others", "chmod 600"]);
    }
    fs::set_permissions(&files.node_key, PermissionsExt::from_mode(0o400)).expect("shut it");
    Credentials::load(&files, &name("home"), now()).expect("nobody else can read it");
}

/// holds M1
#[test]
fn validity_is_that_of_the_time_of_loading() {
    let mut lab = Lab::founded(now() - 20);
    let files = lab.node("home");
    check_refused(&files, now() + 3 * YEAR_S, &["the node's certificate expired at 20"]);
    check_refused(&files, now() - 400, &["CA's certificate is not valid before", "clock"]);
    check_refused(&files, now() + 11 * YEAR_S, &["the CA's certificate expired"]);
    let mut old = Lab::founded(now() - 5 * YEAR_S);
    let later = old.node("home");
    check_refused(&later, now() - YEAR_S, &["the node's certificate is not valid before"]);
}

/// holds M1
#[test]
fn a_certificate_of_another_ca_is_refused() {
    let (mut lab, mut other) = (Lab::new(), Lab::new());
    let (files, foreign) = (lab.node("home"), other.node("home"));
    fs::copy(&foreign.node_cert, &files.node_cert).expect("copy");
    fs::copy(&foreign.node_key, &files.node_key).expect("copy");
    check_refused(&files, now(), &["the node's certificate is of another CA"]);
}

#[test]
fn a_nodes_certificate_is_no_ca() {
    let mut lab = Lab::new();
    let files = lab.node("home");
    fs::copy(&files.node_cert, &files.ca_cert).expect("copy");
    check_refused(&files, now(), &["is no CA's"]);
}

/// holds M1
#[test]
fn the_own_name_must_be_the_common_name_and_a_dns_name() {
    let mut lab = Lab::new();
    let office = lab.node("office");
    check_refused(&office, now(), &["names common name [\"office\"]", "not `home`"]);
    let usages = "extendedKeyUsage=serverAuth,clientAuth\n";
    for (dir, subject, names) in [
        ("no-san", "/CN=home", ""),
        ("ip-only", "/CN=home", "subjectAltName=IP:10.0.0.1\n"),
        ("other-san", "/CN=home", "subjectAltName=DNS:office\n"),
        ("other-cn", "/CN=office", "subjectAltName=DNS:home\n"),
        ("no-cn", "/O=home", "subjectAltName=DNS:home\n"),
        ("two-cns", "/CN=home/CN=office", "subjectAltName=DNS:home,DNS:office\n"),
        ("no-name", "/CN=Home", "subjectAltName=DNS:Home\n"),
    ] {
        let files = lab.by_openssl_named(dir, subject, &EC, &format!("{names}{usages}"));
        check_refused(&files, now(), &["its common name and one of its DNS names must be"]);
    }
}

/// holds M1
#[test]
fn a_certificate_bound_to_another_mesh_or_node_is_refused() {
    let lab = Lab::new();
    let mesh = lab.authority.mesh();
    let usages = extensions("home");
    for (dir, uri) in [
        ("mesh", "cortex://00000000000000000000000000000000/home".to_owned()),
        ("node", format!("cortex://{mesh}/office")),
        ("both", format!("cortex://{mesh}/home,URI:cortex://{mesh}/office")),
    ] {
        let bound = usages.replace("DNS:home", &format!("DNS:home,URI:{uri}"));
        let files = lab.by_openssl_named(dir, "/CN=home", &EC, &bound);
        check_refused(&files, now(), &["of a mesh; this is `home`"]);
    }
    let bound = usages.replace("DNS:home", &format!("DNS:home,URI:cortex://{mesh}/home"));
    let files = lab.by_openssl_named("good", "/CN=home", &EC, &bound);
    Credentials::load(&files, &name("home"), now()).expect("bound to this one");
}

/// holds M1, M5
#[test]
fn both_usages_must_be_there() {
    let lab = Lab::new();
    for (dir, usage) in [
        ("client", "extendedKeyUsage=clientAuth\n"),
        ("server", "extendedKeyUsage=serverAuth\n"),
        ("any", "extendedKeyUsage=anyExtendedKeyUsage\n"),
        ("none", ""),
    ] {
        let extensions = format!("subjectAltName=DNS:home\n{usage}");
        let files = lab.by_openssl_named(dir, "/CN=home", &EC, &extensions);
        check_refused(&files, now(), &["serverAuth and clientAuth"]);
    }
}

/// holds M1, E1
#[test]
fn revoked_credentials_are_refused() {
    let mut lab = Lab::new();
    let files = lab.node("home");
    lab.authority.revoke("home", now()).expect("revoke");
    put(&files.crl, &lab.authority.revocation_list().expect("a list"));
    check_refused(&files, now(), &["the node's certificate is revoked"]);

    ListByOpenssl {
        ca: &files.ca_cert,
        key: &lab.path("ca/ca.key"),
        revoked: &[serial_of(&files.ca_cert)],
        next_update: FAR,
    }
    .write(&lab.path("ca"), &files.crl);
    check_refused(&files, now(), &["the CA's certificate is revoked"]);
}

/// holds M1
#[test]
fn a_revocation_list_must_be_this_cas_and_current() {
    let (mut lab, mut other) = (Lab::new(), Lab::new());
    let (files, foreign) = (lab.node("home"), other.node("home"));
    fs::copy(&foreign.crl, &files.crl).expect("copy");
    check_refused(&files, now(), &["the revocation list is of another CA"]);

    let list = ListByOpenssl {
        ca: &files.ca_cert,
        key: &lab.path("ca/ca.key"),
        revoked: &[],
        next_update: "260101000000Z",
    };
    list.write(&lab.path("ca"), &files.crl);
    check_refused(&files, now(), &["the revocation list expired at 2026-01-01T00:00:00Z"]);
    ListByOpenssl { next_update: FAR, ..list }.write(&lab.path("ca"), &files.crl);
    Credentials::load(&files, &name("home"), now()).expect("a current list by openssl");
}

/// holds M1
#[test]
fn a_revocation_list_by_a_ca_of_the_same_name_is_refused() {
    let mut lab = Lab::new();
    let files = lab.node("home");
    let subject = openssl(&[
        "x509",
        "-in",
        &text(&files.ca_cert),
        "-noout",
        "-subject",
        "-nameopt",
        "compat",
    ]);
    let subject = format!(
        "/{}",
        subject
            .trim()
            .strip_prefix("subject=")
            .expect("a subject")
            .trim()
            .trim_start_matches('/')
            .replace(" = ", "=")
    );
    let (key, twin) = (lab.path("twin.key"), lab.path("twin.crt"));
    openssl(&[
        "req",
        "-x509",
        "-new",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-utf8",
        "-subj",
        &subject,
        "-days",
        "30",
        "-keyout",
        &text(&key),
        "-out",
        &text(&twin),
    ]);
    ListByOpenssl { ca: &twin, key: &key, revoked: &[], next_update: FAR }
        .write(&lab.path("ca"), &files.crl);
    check_refused(&files, now(), &["the revocation list is of another CA"]);
}

#[test]
fn keys_of_every_kind_that_openssl_makes_are_taken_or_clearly_refused() {
    let lab = Lab::new();
    for (dir, key) in [
        ("p256", &EC[..]),
        ("p384", &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("p521", &["ec", "-pkeyopt", "ec_paramgen_curve:P-521"]),
        ("ed25519", &["ed25519"]),
        ("rsa", &["rsa:2048"]),
    ] {
        let files = lab.by_openssl_named(dir, "/CN=home", key, &extensions("home"));
        let credentials = Credentials::load(&files, &name("home"), now());
        let credentials = credentials.unwrap_or_else(|error| panic!("{dir}: {error}"));
        let message = b"test v1\0hello";
        let signature = credentials.sign(message);
        let certificate = credentials.certificate();
        let verified = credentials.verify_row(certificate, message, &signature, now());
        assert_eq!(verified.expect(dir).key_hash, credentials.key_hash(), "{dir}");
    }
    for (dir, key) in [
        ("k256", &["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"][..]),
        ("ed448", &["ed448"]),
        ("short", &["rsa:1024"]),
    ] {
        let files = lab.by_openssl_named(dir, "/CN=home", key, &extensions("home"));
        check_refused(&files, now(), &["of no kind that is supported", &text(&files.node_key)]);
    }
}

#[test]
fn a_mesh_whose_ca_is_openssls_is_named_after_its_key() {
    let lab = Lab::new();
    let dir = lab.path("foreign");
    fs::create_dir(&dir).expect("make a directory");
    let (key, ca) = (dir.join("ca.key"), dir.join("ca.crt"));
    openssl(&[
        "req",
        "-x509",
        "-new",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-384",
        "-subj",
        "/O=Example/CN=Root",
        "-days",
        "3650",
        "-keyout",
        &text(&key),
        "-out",
        &text(&ca),
    ]);
    ListByOpenssl { ca: &ca, key: &key, revoked: &[], next_update: FAR }
        .write(&dir, &dir.join("crl.pem"));
    // Our tools work with it too.
    let mut authority = cortexd::pki::Authority::open(&dir).expect("open");
    let node = cortexd::pki::NewKey::generate().expect("a key");
    let issued = authority
        .issue(
            &name("home"),
            "10.0.0.1",
            &node.public().expect("public"),
            cortexd::pki::Duplicate::Refuse,
            now(),
        )
        .expect("issue");
    let files = lab.files("of-foreign", &issued.pem, &node.pem());
    fs::copy(&ca, &files.ca_cert).expect("copy");
    fs::copy(dir.join("crl.pem"), &files.crl).expect("copy");
    let credentials = Credentials::load(&files, &name("home"), now()).expect("good");
    assert_eq!(credentials.mesh(), authority.mesh());
    assert_ne!(credentials.mesh(), lab.authority.mesh());
}

/// holds E1
#[test]
fn a_renewed_certificate_has_another_serial_and_outlives_the_revocation_of_the_old_one() {
    let mut lab = Lab::new();
    let files = lab.node("home");
    let first = Serial::parse(&serial_of(&files.node_cert)).expect("a serial number");
    let renewed = lab.authority.renew(&name("home"), now()).expect("renew");
    assert_ne!(renewed.serial, first);
    lab.authority.revoke(&first.to_string(), now()).expect("revoke the old one");
    put(&files.crl, &lab.authority.revocation_list().expect("a list"));
    check_refused(&files, now(), &["revoked"]);
    put(&files.node_cert, &renewed.pem);
    let credentials = Credentials::load(&files, &name("home"), now()).expect("the same key");
    assert!(credentials.revokes(&first));
    assert!(!credentials.revokes(&renewed.serial));
}

#[test]
fn intermediates_may_follow_the_nodes_certificate() {
    let lab = Lab::new();
    let dir = lab.path("chain");
    fs::create_dir(&dir).expect("make a directory");
    let at = |name: &str| dir.join(name);
    let p = |name: &str| text(&at(name));
    put(&at("middle.ext"), "basicConstraints=critical,CA:true\nkeyUsage=keyCertSign,cRLSign\n");
    put(&at("leaf.ext"), &extensions("home"));
    let ec = ["-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let make = |arguments: &[&str]| openssl(&[arguments, &ec].concat());
    make(&[
        "req",
        "-x509",
        "-new",
        "-subj",
        "/CN=Root",
        "-days",
        "30",
        "-keyout",
        &p("root.key"),
        "-out",
        &p("ca.crt"),
    ]);
    make(&[
        "req",
        "-new",
        "-subj",
        "/CN=Middle",
        "-keyout",
        &p("middle.key"),
        "-out",
        &p("middle.csr"),
    ]);
    make(&["req", "-new", "-subj", "/CN=home", "-keyout", &p("node.key"), "-out", &p("leaf.csr")]);
    let sign = |csr: &str, ca: &str, key: &str, ext: &str, out: &str| {
        openssl(&[
            "x509",
            "-req",
            "-in",
            &p(csr),
            "-CA",
            &p(ca),
            "-CAkey",
            &p(key),
            "-days",
            "20",
            "-extfile",
            &p(ext),
            "-out",
            &p(out),
        ])
    };
    sign("middle.csr", "ca.crt", "root.key", "middle.ext", "middle.crt");
    sign("leaf.csr", "middle.crt", "middle.key", "leaf.ext", "leaf.crt");
    let list = |ca: &str, key: &str, out: &str| {
        ListByOpenssl { ca: &at(ca), key: &at(key), revoked: &[], next_update: FAR }
            .write(&dir, &at(out));
    };
    list("ca.crt", "root.key", "root.crl");
    list("middle.crt", "middle.key", "middle.crl");
    let read = |name: &str| fs::read_to_string(at(name)).expect("read");
    put(&at("node.crt"), &(read("leaf.crt") + &read("middle.crt")));
    put(&at("crl.pem"), &(read("root.crl") + &read("middle.crl")));
    let files = Files::in_dir(&dir);
    let credentials = Credentials::load(&files, &name("home"), now()).expect("a whole chain");
    let signature = credentials.sign(b"x");
    credentials
        .verify_row(credentials.certificate(), b"x", &signature, now())
        .expect("the row carries the leaf alone");
    put(&at("node.crt"), &read("leaf.crt"));
    check_refused(&files, now(), &["of another CA"]);
}

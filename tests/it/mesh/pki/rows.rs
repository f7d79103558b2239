//! What a node signs, judged by another.

use cortexd::pki::{Credentials, Rejected};

use crate::mesh::pki::lab::{Lab, YEAR_S, name, now, put};

const MESSAGE: &[u8] = b"cortexd test v1\0a row";

#[test]
fn a_signature_names_its_node_and_no_other_message() {
    let mut lab = Lab::new();
    let (home, office) = (lab.credentials("home"), lab.credentials("office"));
    let signature = home.sign(MESSAGE);
    let peer = office.verify_row(home.certificate(), MESSAGE, &signature, now()).expect("good");
    assert_eq!(peer.node, name("home"));
    assert_eq!(peer.key_hash, home.key_hash());
    assert_eq!(peer.not_after, home.not_after());
    let refused = |message: &[u8], signature: &[u8], credentials: &Credentials| {
        office
            .verify_row(credentials.certificate(), message, signature, now())
            .expect_err("not signed")
    };
    assert_eq!(refused(b"another", &signature, &home), Rejected::Signature);
    assert_eq!(refused(MESSAGE, &signature, &office), Rejected::Signature);
    assert_eq!(refused(MESSAGE, &[], &home), Rejected::Signature);
    for at in 0..signature.len() {
        let mut forged = signature.clone();
        forged[at] ^= 1;
        assert_eq!(refused(MESSAGE, &forged, &home), Rejected::Signature, "bit in byte {at}");
    }
}

/// holds E1
#[test]
fn a_signature_counts_as_long_as_its_certificate_does() {
    let (mut lab, mut other) = (Lab::new(), Lab::new());
    let (home, office) = (lab.credentials("home"), lab.node("office"));
    let signature = home.sign(MESSAGE);
    let judge = |files, at| {
        Credentials::load(files, &name("office"), now()).expect("good").verify_row(
            home.certificate(),
            MESSAGE,
            &signature,
            at,
        )
    };
    judge(&office, now()).expect("good");
    assert_eq!(judge(&office, now() + 3 * YEAR_S), Err(Rejected::Expired));
    assert_eq!(judge(&office, now() - 3 * YEAR_S), Err(Rejected::NotYetValid));
    lab.authority.revoke("home", now()).expect("revoke");
    put(&office.crl, &lab.authority.revocation_list().expect("a list"));
    assert_eq!(judge(&office, now()), Err(Rejected::Revoked));
    let foreign = other.node("office");
    assert_eq!(judge(&foreign, now()), Err(Rejected::OtherAuthority));
}

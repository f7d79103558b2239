//! Any text as a claim token: read without a panic, and nothing is believed that no key has signed.
//! Leaves real signatures to tests over real certificates.

#![no_main]

use cortex_core::model::{KeyHash, MeshId, NodeName, NotSigned, Signer};
use cortexd::service::token::Token;
use libfuzzer_sys::fuzz_target;

/// A judge whom nothing convinces.
#[derive(Debug)]
struct Unconvinced(NodeName);

impl Signer for Unconvinced {
    fn mesh(&self) -> MeshId {
        MeshId([0; 16])
    }
    fn node(&self) -> &NodeName {
        &self.0
    }
    fn key_hash(&self) -> KeyHash {
        [0; 32]
    }
    fn certificate(&self) -> &[u8] {
        &[]
    }
    fn sign(&self, _message: &[u8]) -> Vec<u8> {
        Vec::new()
    }
    fn verify(&self, _: &[u8], _: &[u8], _: &[u8]) -> Result<(NodeName, KeyHash), NotSigned> {
        Err(NotSigned("never".into()))
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(signed) = Token::read(text) else {
        return;
    };
    let judge = Unconvinced(NodeName::parse("here").expect("a name"));
    assert!(signed.check(&judge, &[]).is_err(), "nobody has signed it");
});

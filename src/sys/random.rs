//! Randomness: the one place where it enters the daemon.
//! Everybody else takes it as an argument or calls here; clippy.toml bans the source elsewhere.

/// 128 random bits from the operating system (getrandom(2)).
///
/// # Panics
/// If the kernel cannot supply randomness, which it always can once booted.
#[must_use]
pub fn id() -> [u8; 16] {
    let mut id = [0; 16];
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    getrandom::fill(&mut id).expect("the kernel supplies randomness");
    id
}

//! Ids of 128 bits as text: 32 hexadecimal digits in lower case, one spelling each.

use std::fmt;

pub(super) fn write(id: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

pub(super) fn read(text: &str) -> Option<[u8; 16]> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if text.len() != 32 || !digits {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!(read("000102030405060708090a0b0c0d0e0f").expect("an id")[15], 15);
        for bad in
            ["", "00", "+00102030405060708090a0b0c0d0e0f", "000102030405060708090A0B0C0D0E0F"]
        {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}

//! Names of nodes as elements of object paths, which know only letters, digits and underscores.
//! Numbers and ids are such elements already; which nodes get a path is `nodes`'s.
//!
//! The rule is systemd's: every other byte is `_` and two hexadecimal digits, a digit at the beginning
//! too, and the empty name is `_`. So `build-1` is `build_2d1`, and no two names share a path.

use zbus::OwnedObjectPath;

use super::ROOT;

/// The path of the object of the node of that name.
pub(super) fn of_node(name: &str) -> OwnedObjectPath {
    let path = format!("{ROOT}/node/{}", escaped(name));
    OwnedObjectPath::try_from(path).expect("an escaped name is a path element")
}

fn escaped(name: &str) -> String {
    if name.is_empty() {
        return "_".into();
    }
    let mut element = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            element.push(byte.into());
        } else {
            element.push_str(&format!("_{byte:02x}"));
        }
    }
    element
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The name that an element stands for.
    fn unescaped(element: &str) -> Vec<u8> {
        let (mut name, mut rest) = (Vec::new(), element.as_bytes());
        while let [first, after @ ..] = rest {
            rest = match (first, after) {
                (b'_', []) => after,
                (b'_', [high, low, after @ ..]) => {
                    let digits = [*high, *low];
                    let digits = std::str::from_utf8(&digits).expect("ASCII");
                    name.push(u8::from_str_radix(digits, 16).expect("two digits"));
                    after
                }
                (byte, after) => {
                    name.push(*byte);
                    after
                }
            };
        }
        name
    }

    #[test]
    fn names_of_machines_are_escaped_as_systemd_does_it() {
        for (name, element) in [
            ("home", "home"),
            ("build-1", "build_2d1"),
            ("1st", "_31st"),
            ("", "_"),
            ("ä", "_c3_a4"),
        ] {
            assert_eq!(escaped(name), element);
        }
    }

    proptest! {
        #[test]
        fn every_name_has_a_path_of_its_own(name in ".{0,70}") {
            prop_assert_eq!(unescaped(&escaped(&name)), name.as_bytes());
            let path = of_node(&name);
            let (branch, _) = path.as_str().rsplit_once('/').expect("a path");
            prop_assert_eq!(branch, format!("{ROOT}/node"), "one element");
        }
    }
}

//! Where a table's data may exist.
//! The scope is kept apart from the access control list: both must let a request pass.

use std::collections::BTreeSet;

use super::{NodeName, Refusal};

/// The machines that may hold a table's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// This machine alone. What older databases without a scope mean.
    #[default]
    Local,
    /// Every member of the mesh.
    All,
    /// The named machines.
    Nodes(BTreeSet<NodeName>),
}

impl Scope {
    /// Reads `local`, `all` or `home,office`.
    ///
    /// # Errors
    /// [`Refusal::InvalidScope`] for an empty list or a name that is none.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "local" => Ok(Self::Local),
            "all" => Ok(Self::All),
            list => {
                let name =
                    |part: &str| NodeName::parse(part.trim()).map_err(|_| Refusal::InvalidScope);
                Ok(Self::Nodes(list.split(',').map(name).collect::<Result<_, _>>()?))
            }
        }
    }

    /// True where `node` may hold rows and ask for them.
    #[must_use]
    pub fn admits(&self, node: &NodeName) -> bool {
        match self {
            Self::Local => false,
            Self::All => true,
            Self::Nodes(nodes) => nodes.contains(node),
        }
    }

    /// The machines that both admit. Only of scopes that name their machines: `local` has none.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, scope) | (scope, Self::All) => scope.clone(),
            (Self::Nodes(one), Self::Nodes(other)) => Self::Nodes(one & other),
            (Self::Local, _) | (_, Self::Local) => Self::Nodes(BTreeSet::new()),
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::All => f.write_str("all"),
            // What contested scopes may have in common. Nobody can write it.
            Self::Nodes(nodes) if nodes.is_empty() => f.write_str("nowhere"),
            Self::Nodes(nodes) => {
                let names: Vec<_> = nodes.iter().map(NodeName::as_str).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_reads_back_as_it_is_shown() {
        for text in ["local", "all", "home", "home,office"] {
            assert_eq!(Scope::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Scope::parse("office, home").expect("spaces").to_string(), "home,office");
        for bad in ["", ",", "home,", "Home", "a b"] {
            assert_eq!(Scope::parse(bad), Err(Refusal::InvalidScope), "{bad:?}");
        }
    }

    #[test]
    fn only_a_node_in_scope_is_admitted() {
        let home = NodeName::parse("home").expect("a name");
        assert!(!Scope::Local.admits(&home));
        assert!(Scope::All.admits(&home));
        assert!(Scope::parse("home,office").expect("a scope").admits(&home));
        assert!(!Scope::parse("office").expect("a scope").admits(&home));
    }
}

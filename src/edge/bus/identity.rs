//! The interface org.cortexd.Cortex1.Identity: a federated identity, at a path made of its id.
//! Which identities have an object, and when it comes and goes, is `identities`'s.
//!
//! Who is who, everybody may ask for on the socket, so the properties answer everybody alike.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::{
    model::Uid,
    wire::{Head, Method, Reader},
};
use zbus::{Connection, OwnedObjectPath, OwnedVariant, interface, message::Header};

use super::{
    ROOT,
    dispatcher::{Dispatcher, Incoming},
    error::{Error, Result},
    options::{self, Options},
    polkit::Action,
    request::{Field, Request},
    values::{self, Dict},
};

/// One identity.
#[derive(Debug)]
pub(super) struct Identity {
    dispatcher: Arc<Dispatcher>,
    id: String,
    /// Its name with its whole id: means this identity, whoever else takes the name.
    handle: String,
}

/// What identity_list and identity_lookup say of one identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IdentityInfo {
    /// As it is shown: with digits of the id where two have the name.
    pub(super) name: String,
    pub(super) id: String,
    mappings: BTreeMap<String, u32>,
    pub(super) home: String,
    pub(super) created_ms: u64,
    contested: bool,
}

/// What identity_register and identity_token answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) expires: u64,
}

impl Identity {
    pub(super) fn new(dispatcher: Arc<Dispatcher>, info: &IdentityInfo) -> Self {
        Self { dispatcher, id: info.id.clone(), handle: info.handle() }
    }

    async fn info(&self) -> Result<IdentityInfo> {
        let lookup = Request::new(Method::IdentityLookup).text(&self.handle);
        let found = self.dispatcher.ask_as(Uid::ROOT, &lookup).await;
        let gone = |error: Error| {
            if error.is_unknown_identity() {
                Error::unknown_object(&object_path(&self.id))
            } else {
                error
            }
        };
        IdentityInfo::read(&found.map_err(gone)?)
    }
}

/// The path of the object of the identity with that id.
pub(super) fn object_path(id: &str) -> OwnedObjectPath {
    let path = format!("{ROOT}/identity/{id}");
    OwnedObjectPath::try_from(path).expect("hexadecimal digits are a path element")
}

#[interface(name = "org.cortexd.Cortex1.Identity", introspection_docs = false)]
impl Identity {
    /// Makes a token that claims this identity on another node.
    #[zbus(out_args("token", "expires"))]
    async fn create_token(
        &self,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(String, u64)> {
        let mut wish = wish(&options, &[])?;
        wish.push(("name", Field::Text(&self.handle)));
        let from = Incoming { connection, header: &header };
        let request = Request::new(Method::IdentityToken).fields(&wish);
        let token = self.dispatcher.manage(from, Action::ManageIdentities, &request).await?;
        let token = Token::read(&token)?;
        Ok((token.text, token.expires))
    }

    /// Takes the identity away from its uid on one node; without a name of one, on all.
    async fn revoke(
        &self,
        node: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let mut request = Request::new(Method::IdentityRevoke).text(&self.handle);
        if !node.is_empty() {
            request = request.text(node);
        }
        self.dispatcher.try_then_manage(from, Action::ManageIdentities, &request, &request).await?;
        Ok(())
    }

    /// Settles the name on this identity, where another has it too.
    async fn keep_name(
        &self,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let name = self.handle.split('~').next().unwrap_or_default();
        let request = Request::new(Method::IdentityResolve).text(name).text(&self.id);
        self.dispatcher.manage(from, Action::ManageIdentities, &request).await?;
        Ok(())
    }

    #[zbus(property, name = "Name")]
    async fn shown_name(&self) -> Result<String> {
        Ok(self.info().await?.name)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.clone()
    }

    #[zbus(property)]
    async fn mappings(&self) -> Result<BTreeMap<String, u32>> {
        Ok(self.info().await?.mappings)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn home(&self) -> Result<String> {
        Ok(self.info().await?.home)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn created_ms(&self) -> Result<u64> {
        Ok(self.info().await?.created_ms)
    }

    #[zbus(property)]
    async fn contested(&self) -> Result<bool> {
        Ok(self.info().await?.contested)
    }
}

/// What a token shall be good for, out of the options of a method, which may know others too.
pub(super) fn wish<'o>(
    options: &'o Options,
    others: &[&str],
) -> Result<Vec<(&'static str, Field<'o>)>> {
    options::only(options, &[&["for_node", "for_uid", "seconds"], others].concat())?;
    let node = options::text(options, "for_node")?.map(|node| ("for_node", Field::Text(node)));
    let uid = options::uid(options, "for_uid")?.map(|uid| ("for_uid", Field::from(uid)));
    let seconds = options::count(options, "seconds")?;
    let seconds = seconds.map(|seconds| ("seconds", Field::Number(seconds)));
    Ok([node, uid, seconds].into_iter().flatten().collect())
}

impl IdentityInfo {
    /// Reads the result of identity_lookup.
    pub(super) fn read(result: &[u8]) -> Result<Self> {
        values::whole(result, read_identity)
    }

    /// Reads the result of identity_list.
    pub(super) fn read_all(result: &[u8]) -> Result<Vec<Self>> {
        values::whole(result, |from| values::read_list(from, read_identity))
    }

    /// Every identity, whoever wants to know; none where this node runs alone.
    pub(super) async fn ask_for_all(dispatcher: &Dispatcher) -> Result<Vec<Self>> {
        match dispatcher.ask_as(Uid::ROOT, &Request::new(Method::IdentityList)).await {
            Ok(list) => Self::read_all(&list),
            Err(error) => error.unless_alone(),
        }
    }

    fn handle(&self) -> String {
        let name = self.name.split('~').next().unwrap_or_default();
        format!("{name}~{}", self.id)
    }

    /// What the properties of its object show.
    pub(super) fn properties(&self) -> Dict {
        let text = |text: &str| values::text(text.to_owned());
        Dict::from([
            ("Name".into(), text(&self.name)),
            ("Id".into(), text(&self.id)),
            ("Mappings".into(), OwnedVariant::from(self.mappings.clone())),
            ("Home".into(), text(&self.home)),
            ("CreatedMs".into(), self.created_ms.into()),
            ("Contested".into(), self.contested.into()),
        ])
    }
}

impl Token {
    /// Reads the result of identity_register or identity_token.
    pub(super) fn read(result: &[u8]) -> Result<Self> {
        values::whole(result, |from| {
            let mut token = Self::default();
            values::each_pair(from, |name, from| {
                match name {
                    "token" => token.text = from.text()?.to_owned(),
                    "fid" => token.id = from.text()?.to_owned(),
                    "expires_at" => token.expires = values::number(from)?,
                    _ => drop(from.raw()?),
                }
                Some(())
            })?;
            Some(token)
        })
    }
}

fn read_identity(from: &mut Reader<'_>) -> Option<IdentityInfo> {
    let mut info = IdentityInfo::default();
    values::each_pair(from, |name, from| {
        match name {
            "fed_id" => info.name = from.text()?.to_owned(),
            "fid" => info.id = from.text()?.to_owned(),
            "mappings" => {
                let uid = |from: &mut Reader<'_>| u32::try_from(values::number(from)?).ok();
                info.mappings = values::read_map(from, uid)?;
            }
            "metadata" => read_metadata(from, &mut info)?,
            _ => drop(from.raw()?),
        }
        Some(())
    })?;
    Some(info)
}

fn read_metadata(from: &mut Reader<'_>, info: &mut IdentityInfo) -> Option<()> {
    if let Some(Head::Nil) = from.clone().head() {
        return from.raw().map(drop);
    }
    values::each_pair(from, |name, from| {
        match name {
            "home" => info.home = from.text()?.to_owned(),
            "created_ms" => info.created_ms = values::number(from)?,
            "contested" => info.contested = values::flag(from)?,
            _ => drop(from.raw()?),
        }
        Some(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_that_is_declared_is_in_the_list_of_all() {
        let file = include_str!("../../../dist/dbus-1/interfaces/org.cortexd.Cortex1.Identity.xml");
        let properties = IdentityInfo::default().properties();
        let mut shown: Vec<_> = properties.keys().map(String::as_str).collect();
        shown.sort_unstable();
        assert_eq!(shown, values::declared_properties(file));
    }

    #[test]
    fn an_identity_is_asked_for_by_its_whole_id_whatever_it_is_shown_as() {
        for shown in ["alice", "alice~3f2a"] {
            let mut info = IdentityInfo::default();
            (info.name, info.id) = (shown.into(), "3f2a00".into());
            assert_eq!(info.handle(), "alice~3f2a00");
        }
    }
}

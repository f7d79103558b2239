//! The interface org.cortexd.Cortex1.Identity: a federated identity, at a path made of its id.
//! Which identities have an object, and when it comes and goes, is `identities`'s.
//!
//! Who is who, everybody may ask for on the socket, so the properties answer everybody alike.

use std::{collections::BTreeMap, sync::Arc};

use cortex_core::{
    api::{self, TokenOptions},
    model::IdentityId,
};
use zbus::{Connection, OwnedObjectPath, OwnedVariant, interface, message::Header};

use super::{
    ROOT,
    dispatcher::{Dispatcher, Incoming},
    error::{Error, Result},
    options::{self, Options},
    polkit::Action,
    request::Request,
    values::{self, Dict},
};

/// One identity.
#[derive(Debug)]
pub(super) struct Identity {
    dispatcher: Arc<Dispatcher>,
    id: String,
    /// Its name with its whole id: means this identity, even if another one takes the name.
    handle: String,
}

impl Identity {
    pub(super) fn new(dispatcher: Arc<Dispatcher>, info: &api::Identity) -> Self {
        Self { dispatcher, id: info.fid.clone(), handle: handle(info) }
    }

    /// As it is now.
    fn info(&self) -> Result<api::Identity> {
        let id = IdentityId::parse(&self.id);
        let found = id.and_then(|id| self.dispatcher.service().identity(id));
        found.ok_or_else(|| Error::unknown_object(&object_path(&self.id)))
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
        let options = TokenOptions { name: Some(self.handle.clone()), ..wish(&options, &[])? };
        let from = Incoming { connection, header: &header };
        let request = Request::of(&api::IdentityToken { options });
        let token = self.dispatcher.manage(from, Action::ManageIdentities, &request).await?;
        Ok((token.token, token.expires_at))
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
        let node = Some(node).filter(|node| !node.is_empty());
        let request = Request::of(&api::IdentityRevoke { name: &self.handle, node });
        self.dispatcher.try_then_manage(from, Action::ManageIdentities, &request, &request).await?;
        Ok(())
    }

    /// Resolves the name to this identity, where another has it too.
    async fn keep_name(
        &self,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        options::none(&options)?;
        let from = Incoming { connection, header: &header };
        let name = self.handle.split('~').next().unwrap_or_default();
        let request = Request::of(&api::IdentityResolve { name, id: &self.id });
        self.dispatcher.manage(from, Action::ManageIdentities, &request).await?;
        Ok(())
    }

    #[zbus(property, name = "Name")]
    fn shown_name(&self) -> Result<String> {
        Ok(self.info()?.fed_id)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.clone()
    }

    #[zbus(property)]
    fn mappings(&self) -> Result<BTreeMap<String, u32>> {
        Ok(self.info()?.mappings)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn home(&self) -> Result<String> {
        Ok(self.info()?.metadata.home)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn created_ms(&self) -> Result<u64> {
        Ok(self.info()?.metadata.created_ms)
    }

    #[zbus(property)]
    fn contested(&self) -> Result<bool> {
        Ok(self.info()?.metadata.contested)
    }
}

/// What a token shall be good for, out of the options of a method, which may know others too.
pub(super) fn wish(options: &Options, others: &[&str]) -> Result<TokenOptions> {
    options::only(options, &[&["for_node", "for_uid", "seconds"], others].concat())?;
    Ok(TokenOptions {
        for_node: options::text(options, "for_node")?.map(str::to_owned),
        for_uid: options::uid(options, "for_uid")?,
        seconds: options::count(options, "seconds")?,
        ..TokenOptions::default()
    })
}

/// What means this identity, even if another one has its name.
fn handle(info: &api::Identity) -> String {
    let name = info.fed_id.split('~').next().unwrap_or_default();
    format!("{name}~{}", info.fid)
}

/// What the properties of its object show.
pub(super) fn properties(info: &api::Identity) -> Dict {
    let text = |text: &str| values::text(text.to_owned());
    Dict::from([
        ("Name".into(), text(&info.fed_id)),
        ("Id".into(), text(&info.fid)),
        ("Mappings".into(), OwnedVariant::from(info.mappings.clone())),
        ("Home".into(), text(&info.metadata.home)),
        ("CreatedMs".into(), info.metadata.created_ms.into()),
        ("Contested".into(), info.metadata.contested.into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_that_is_declared_is_in_the_list_of_all() {
        let file = include_str!("../../../dist/dbus-1/interfaces/org.cortexd.Cortex1.Identity.xml");
        let properties = properties(&api::Identity::default());
        let mut shown: Vec<_> = properties.keys().map(String::as_str).collect();
        shown.sort_unstable();
        assert_eq!(shown, values::declared_properties(file));
    }

    #[test]
    fn an_identity_is_asked_for_by_its_whole_id_whatever_it_is_shown_as() {
        for shown in ["alice", "alice~3f2a"] {
            let mut info = api::Identity::default();
            (info.fed_id, info.fid) = (shown.into(), "3f2a00".into());
            assert_eq!(handle(&info), "alice~3f2a00");
        }
    }
}

//! Somebody on the network who is no node: openssl(1) of the machine that runs the tests, beside the bridge.
//! Which certificates to come with, the tests say.

use std::{
    fs,
    path::{Path, PathBuf},
};

use system_tests::{Host, Network, Ran};
use tempfile::TempDir;

/// What `openssl ca` wants to be told.
const AUTHORITY: &str = "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\nnew_certs_dir = .\n\
    rand_serial = yes\ncertificate = ca.crt\nprivate_key = ca.key\ndefault_md = sha256\n\
    default_days = 30\nunique_subject = no\npolicy = any\n[any]\ncommonName = supplied\n";

/// A `ping`, and a byte that begins nothing: the daemon answers the one and closes upon the other.
const PING: &str = r"\224\000\001\244ping\220\301";

/// A place on the network, with a directory for certificates.
pub(super) struct Stranger<'a> {
    network: &'a Network,
    dir: TempDir,
}

/// A certificate and its key: `FILE.crt` and `FILE.key` in the stranger's directory.
#[derive(Clone, Debug)]
pub(super) struct Papers(PathBuf);

impl<'a> Stranger<'a> {
    /// Between the hosts, as 10.99.0.9.
    #[track_caller]
    pub(super) fn between(network: &'a Network) -> Self {
        network.sh("ip address add 10.99.0.9/24 dev br0").expect_ok();
        Self { network, dir: tempfile::tempdir().expect("make a directory") }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Copies `NAME.crt` and `NAME.key` from a directory of a host.
    #[track_caller]
    pub(super) fn takes(&self, host: &Host, dir: &str, name: &str, as_file: &str) -> Papers {
        let papers = Papers(self.path(as_file));
        for ending in ["crt", "key"] {
            let from = host.path(dir).join(name).with_extension(ending);
            let copied = fs::copy(&from, papers.0.with_extension(ending));
            copied.unwrap_or_else(|error| panic!("cannot take {}: {error}", from.display()));
        }
        papers
    }

    /// Makes a certificate with openssl, signed by the CA of this host; `validity` as options of `openssl ca`.
    #[track_caller]
    pub(super) fn forges(&self, host: &Host, node: &str, file: &str, validity: &[&str]) -> Papers {
        self.takes(host, "/var/lib/cortex/ca", "ca", "ca");
        for (file, text) in [
            ("ca.cnf", AUTHORITY.to_owned()),
            ("index.txt", String::new()),
            (
                "extensions",
                format!("subjectAltName = DNS:{node}\nextendedKeyUsage = serverAuth,clientAuth\n"),
            ),
        ] {
            fs::write(self.path(file), text).expect("write what openssl reads");
        }
        self.sh(&format!(
            "cd {}
            openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN={node} \
                -keyout {file}.key -out {file}.csr
            openssl ca -batch -notext -config ca.cnf -extfile extensions {} \
                -in {file}.csr -out {file}.crt",
            self.dir.path().display(),
            validity.join(" "),
        ))
        .expect_ok();
        Papers(self.path(file))
    }

    /// Whether a host answers a request.
    pub(super) fn pings(&self, address: &str, papers: Option<&Papers>) -> bool {
        let said = self.sh(&format!(
            "printf '{PING}' | timeout 20 openssl s_client -quiet {} || true",
            connection(address, papers)
        ));
        said.stdout.contains("pong")
    }

    /// The serial number of the certificate that a host shows to everybody.
    #[track_caller]
    pub(super) fn serial_number(&self, address: &str) -> String {
        let said = self.sh(&format!(
            "timeout 20 openssl s_client {} </dev/null | openssl x509 -noout -serial",
            connection(address, None)
        ));
        let serial = said.expect_ok().trim_start_matches("serial=").to_lowercase();
        assert!(!serial.is_empty(), "{address} shows no certificate");
        serial
    }

    fn sh(&self, script: &str) -> Ran {
        self.network.sh(script)
    }
}

fn connection(address: &str, papers: Option<&Papers>) -> String {
    let shown = papers.map_or(String::new(), |Papers(file)| {
        let [certificate, key] = ["crt", "key"].map(|ending| shown(&file.with_extension(ending)));
        format!("-cert {certificate} -key {key}")
    });
    format!("-connect {address}:4712 -tls1_3 -alpn cortex-rpc/1 {shown}")
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

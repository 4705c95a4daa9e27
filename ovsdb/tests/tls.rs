//! TLS against a real ovsdb-server, with certificates as ovs-pki makes them: one authority, names that are not host names.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::path::{Path, PathBuf};

use common::{NB, Owner, Server, run};
use ovsdb::{Config, Endpoint, Event, MonitorSpec, TlsFiles};

struct Pki {
    dir: PathBuf,
}

impl Pki {
    fn new(dir: &Path) -> Pki {
        std::fs::create_dir_all(dir).unwrap();
        let pki = Pki { dir: dir.to_owned() };
        let (key, certificate) = (pki.file("ca-key"), pki.file("ca"));
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "30",
                "-subj",
                "/CN=OVS test CA",
                "-keyout",
                &key,
                "-out",
                &certificate,
            ],
        );
        pki
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(format!("{name}.pem")).display().to_string()
    }

    /// A key and a certificate that the authority signs.
    fn issue(&self, name: &str) {
        let (key, request, certificate) = (self.file(&format!("{name}-key")), self.file("request"), self.file(name));
        let subject = format!("/CN={name} id:0f1e2d3c");
        run("openssl", &["req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &request]);
        let extensions = self.file("extensions");
        std::fs::write(&extensions, format!("subjectAltName=DNS:{name}\n")).unwrap();
        run(
            "openssl",
            &[
                "x509",
                "-req",
                "-days",
                "30",
                "-in",
                &request,
                "-CA",
                &self.file("ca"),
                "-CAkey",
                &self.file("ca-key"),
                "-set_serial",
                "2",
                "-extfile",
                &extensions,
                "-out",
                &certificate,
            ],
        );
    }

    fn client(&self) -> TlsFiles {
        TlsFiles {
            private_key: self.file("client-key").into(),
            certificate: self.file("client").into(),
            ca_certificate: self.file("ca").into(),
        }
    }
}

#[tokio::test]
async fn both_sides_show_certificates_and_files_are_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (pki, stranger) = (Pki::new(&dir.path().join("pki")), Pki::new(&dir.path().join("stranger")));
    pki.issue("server");
    stranger.issue("client");
    let port = common::free_port();
    let options = [
        format!("--private-key={}", pki.file("server-key")),
        format!("--certificate={}", pki.file("server")),
        format!("--ca-cert={}", pki.file("ca")),
    ];
    let remote = format!("pssl:{port}:127.0.0.1");
    let _server = Server::standalone(dir.path(), &[&remote], &options.iter().map(String::as_str).collect::<Vec<_>>());

    let mut config = Config::new(vec![Endpoint::Ssl("127.0.0.1".into(), port)]);
    config.tls = Some(pki.client());
    let mut owner = Owner::spawn(config.clone(), &NB, MonitorSpec::everything(&NB));
    // The client's files are not there yet.
    let error = owner.disconnected().await;
    assert!(error.contains("read") && error.contains("client"), "{error}");
    // They come, but of a stranger's authority: the server refuses.
    for name in ["client", "client-key"] {
        std::fs::copy(stranger.file(name), pki.file(name)).unwrap();
    }
    let refused = |error: &str| error.contains("authority that signed") && error.contains(&pki.file("client"));
    owner.until(|e| matches!(e, Event::Disconnected(e) if refused(&common::chain(&e))).then_some(())).await;
    // The right ones, without a word to the client.
    pki.issue("client");
    owner.connected().await;
    owner.transact(&[ovsdb::Op::Comment("over TLS".into())]).await.unwrap();

    config.tls = Some(TlsFiles { ca_certificate: stranger.file("ca").into(), ..pki.client() });
    let error = Owner::spawn(config.clone(), &NB, MonitorSpec::new()).disconnected().await;
    assert!(error.contains("handshake"), "a server of another authority is refused: {error}");
    config.tls = None;
    let error = Owner::spawn(config, &NB, MonitorSpec::new()).disconnected().await;
    assert!(error.contains("no private key"), "{error}");
}

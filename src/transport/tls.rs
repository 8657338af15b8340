//! The certificate of a service that speaks HTTPS itself, read again when its files change, so that a renewal needs no restart.

use std::{
    io,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Tls,
    error::{Error, Result},
};

/// What is spoken inside, what we like best first.
const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// The certificate that is in use. Cheap to clone.
#[derive(Clone)]
pub(super) struct Certificate {
    files: Tls,
    current: Arc<RwLock<TlsAcceptor>>,
}

impl Certificate {
    /// Reads the files; fails when they are not a certificate with its key.
    pub(super) fn open(files: Tls) -> Result<Self> {
        let acceptor = read(&files)?;
        Ok(Self { files, current: Arc::new(RwLock::new(acceptor)) })
    }

    /// Shakes hands with a client. Answers the stream, and whether HTTP/2 is spoken in it.
    pub(super) async fn shake_hands(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, bool)> {
        let acceptor = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => {
                let h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
                Ok((stream, h2))
            }
            Err((error, mut stream)) => {
                // Who speaks plainly on this port is let go.
                if let Err(gone) = stream.shutdown().await {
                    tracing::debug!(error = %gone, "a client that did not shake hands was gone already");
                }
                Err(error)
            }
        }
    }

    /// Reads the files again whenever they change, until `stop`. What cannot be read leaves the old certificate in use.
    pub(super) async fn keep(self, stop: CancellationToken) {
        let mut seen = changed(&self.files);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK) => {}
            }
            let now = changed(&self.files);
            if now != seen {
                seen = now;
                self.renew();
            }
        }
    }

    fn renew(&self) {
        match read(&self.files) {
            Ok(acceptor) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                tracing::info!("the certificate was read again");
            }
            Err(error) => tracing::error!(%error, "the certificate cannot be read; the one before stays in use"),
        }
    }
}

fn changed(files: &Tls) -> [Option<SystemTime>; 2] {
    [&files.certificate, &files.key].map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
}

fn read(files: &Tls) -> Result<TlsAcceptor> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| Error::internal(format!("{}: {why}", path.display()));
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|why| wrong(&files.certificate, &why))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|why| wrong(&files.key, &why))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|why| wrong(&files.certificate, &why))?;
    config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;

    fn write(files: &Tls) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&files.certificate, cert.pem()).unwrap();
        std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
        cert.der().clone()
    }

    /// Shakes hands as a client that trusts one certificate. Answers whether HTTP/2 is spoken.
    async fn call(certificate: &Certificate, trusted: CertificateDer<'static>, offers: &[&[u8]]) -> io::Result<bool> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = async {
            let (stream, _) = listener.accept().await?;
            certificate.shake_hands(stream).await.map(|(_, h2)| h2)
        };
        let mut roots = RootCertStore::empty();
        roots.add(trusted).unwrap();
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = offers.iter().map(|name| name.to_vec()).collect();
        let calling = async {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").unwrap();
            TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(drop)
        };
        let (served, called) = tokio::join!(serving, calling);
        called.and(served)
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = Tls { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        assert!(Certificate::open(files.clone()).is_err(), "there are no files");
        let first = write(&files);
        let certificate = Certificate::open(files.clone()).unwrap();
        assert!(call(&certificate, first.clone(), &[H2, HTTP1]).await.unwrap());
        assert!(!call(&certificate, first.clone(), &[HTTP1]).await.unwrap());
        assert!(!call(&certificate, first.clone(), &[]).await.unwrap());
        let second = write(&files);
        certificate.renew();
        assert!(call(&certificate, first, &[H2]).await.is_err(), "the old one is not shown any more");
        assert!(call(&certificate, second.clone(), &[H2]).await.unwrap());
        std::fs::write(&files.key, "no key").unwrap();
        certificate.renew();
        assert!(call(&certificate, second, &[H2]).await.unwrap(), "the one before stays in use");
    }
}

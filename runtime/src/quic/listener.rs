//! TLS for a node's TCP listeners, with the node's own certificate, and for those who dial them.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
    client::{Resumption, danger::HandshakeSignatureValid},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};

use super::tls::{SUFFIX, key_of, names_of, provider, roots_of};
use crate::{
    identity::{ClusterName, NodeName},
    world::network::{BindError, TlsFiles},
};

/// TLS 1.3 for listeners that clients come to. Cloning is cheap; certificates can be renewed and
/// names revoked while listeners use it: what counts is what is there when somebody connects.
#[derive(Clone)]
pub struct ListenerTls {
    live: Arc<Live>,
    config: Arc<ServerConfig>,
}

impl ListenerTls {
    /// With the node's certificate; with `demand`, clients must show one of the same authority,
    /// made for a node or a client of `cluster`.
    ///
    /// # Errors
    /// Files that cannot be used.
    pub fn new(files: &TlsFiles, cluster: &ClusterName, demand: bool) -> Result<Self, BindError> {
        let state = RwLock::new(State::of(files)?);
        let live = Arc::new(Live { cluster: cluster.clone(), state, revoked: RwLock::default() });
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| BindError::Tls(format!("TLS 1.3: {e}")))?;
        let config = match demand {
            true => config.with_client_cert_verifier(Arc::new(Door(Arc::clone(&live)))),
            false => config.with_no_client_auth(),
        };
        let mut config = config.with_cert_resolver(Arc::new(Door(Arc::clone(&live))));
        // No ticket stands in for a certificate that may be revoked by then.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { live, config: Arc::new(config) })
    }

    /// What a listener is given.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Uses these files for whoever connects from now on.
    ///
    /// # Errors
    /// Files that cannot be used; nothing was changed.
    pub fn renew(&self, files: &TlsFiles) -> Result<(), BindError> {
        let state = State::of(files)?;
        *self.live.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    /// Refuses certificates of exactly these nodes and clients from now on.
    pub fn revoke(&self, names: BTreeSet<NodeName>) {
        *self.live.revoked.write().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

impl fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerTls").field("cluster", &self.live.cluster).finish_non_exhaustive()
    }
}

/// TLS 1.3 for clients: trusts the authority `ca` and shows `own` (certificate and key), all PEM.
///
/// # Errors
/// Texts that cannot be used.
pub fn client_tls(ca: &[u8], own: Option<(&[u8], &[u8])>) -> Result<ClientConfig, BindError> {
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| BindError::Tls(format!("TLS 1.3: {e}")))?
        .with_root_certificates(roots_of(ca)?);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let bad = |e: &dyn fmt::Display| BindError::Tls(format!("the certificate: {e}"));
            let chain = CertificateDer::pem_slice_iter(cert)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| bad(&e))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad(&e))?;
            config.with_client_auth_cert(chain, key).map_err(|e| bad(&e))?
        }
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What changes while listeners run.
struct Live {
    cluster: ClusterName,
    state: RwLock<State>,
    revoked: RwLock<BTreeSet<NodeName>>,
}

#[derive(Clone)]
struct State {
    own: Arc<CertifiedKey>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl State {
    fn of(files: &TlsFiles) -> Result<Self, BindError> {
        let clients = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots_of(&files.ca)?),
            Arc::new(provider()),
        );
        let clients = clients
            .build()
            .map_err(|e| BindError::Tls(format!("the authority's certificate: {e}")))?;
        Ok(Self { own: Arc::new(key_of(files)?), clients })
    }
}

impl Live {
    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A node or a client of this cluster, and not a revoked one.
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let names = names_of(certificate).map_err(Error::General)?;
        let end = format!(".{}.{SUFFIX}", self.cluster);
        let bare = |name: &String| {
            let name = name.strip_suffix(&end)?;
            name.strip_suffix(CLIENT).unwrap_or(name).parse::<NodeName>().ok()
        };
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        match names.iter().find_map(bare) {
            None => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
            Some(name) if revoked.contains(&name) => {
                tracing::warn!(%name, "a revoked client is refused");
                Err(Error::InvalidCertificate(CertificateError::Revoked))
            }
            Some(_) => Ok(()),
        }
    }
}

/// What stands between a client's name and the cluster's: `ann.client.bank.synod`. A node's name has
/// no dot, so no client is ever taken for a node.
pub(super) const CLIENT: &str = ".client";

/// The listener's side of a handshake.
struct Door(Arc<Live>);

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Door {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.state().own)
    }
}

impl ClientCertVerifier for Door {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // There is one authority, and everybody here knows it.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let clients = self.0.state().clients;
        let verified = clients.verify_client_cert(end_entity, intermediates, now)?;
        self.0.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.state().clients.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.state().clients.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.state().clients.supported_verify_schemes()
    }
}

//! Node keys, and TLS 1.3 between nodes with raw public keys (RFC 7250).
//!
//! There is no certificate authority, no name and no date. Each node has one Ed25519 key, the
//! configuration in the log lists the public halves, and a handshake succeeds with exactly the keys
//! of current members: whoever is removed is revoked. [`MemberKeys`] is that list; it may change at
//! any time. Which *member* it is decides the hello, see `peers/handshake.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use paxos::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

/// What we speak inside TLS. A foreign TLS client that offers something else gets no further.
pub const ALPN: &[u8] = b"paxos-peer/1";

/// DER of an Ed25519 SubjectPublicKeyInfo before its 32 key bytes (RFC 8410).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];
/// DER of an Ed25519 PKCS#8 private key before its 32 seed bytes (RFC 8410).
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

pub type PublicKey = [u8; 32];

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the operating system gives no randomness")]
    NoRandomness,
    #[error("not an Ed25519 key in PKCS#8 form")]
    NotAKey,
    #[error("set up TLS: {0}")]
    Setup(#[from] Error),
}

/// A node's Ed25519 key pair. Its `Debug` shows the public half only.
pub struct NodeKey {
    pkcs8: Vec<u8>,
    signing: Arc<dyn SigningKey>,
    public: PublicKey,
}

impl NodeKey {
    pub fn generate() -> Result<NodeKey, KeyError> {
        let seed = NodeKey::random::<32>()?;
        NodeKey::from_pkcs8([&PKCS8_HEAD[..], &seed].concat())
    }

    pub fn from_pkcs8(pkcs8: Vec<u8>) -> Result<NodeKey, KeyError> {
        let der = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
        let signing = rustls::crypto::ring::sign::any_eddsa_type(&der);
        let signing = signing.map_err(|_| KeyError::NotAKey)?;
        let public = signing.public_key().and_then(|spki| raw_key(&spki));
        let public = public.ok_or(KeyError::NotAKey)?;
        Ok(NodeKey { pkcs8, signing, public })
    }

    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Bytes from the operating system's generator.
    pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
        let mut bytes = [0; N];
        let random = rustls::crypto::ring::default_provider().secure_random;
        random.fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
        Ok(bytes)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey(public {})", crate::identity::hex(&self.public))
    }
}

/// The keys that a handshake accepts now, shared with the verifiers.
#[derive(Debug, Default)]
pub struct MemberKeys {
    by_key: RwLock<BTreeMap<PublicKey, NodeId>>,
}

impl MemberKeys {
    pub fn replace(&self, keys: BTreeMap<PublicKey, NodeId>) {
        *self.by_key.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    pub fn owner(&self, key: &PublicKey) -> Option<NodeId> {
        self.by_key.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }
}

/// The two sides of our TLS. Both present this node's key and demand a member's.
pub struct PeerTls {
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
}

impl PeerTls {
    pub fn new(key: &NodeKey, members: Arc<MemberKeys>) -> Result<PeerTls, KeyError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let spki = CertificateDer::from([&SPKI_HEAD[..], &key.public].concat());
        let own = Arc::new(CertifiedKey::new(vec![spki], key.signing.clone()));
        let verifier = Arc::new(MemberVerifier { members, provider: provider.clone() });

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                own.clone(),
            )));
        client.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would skip the key check, and with it the removal of a member.
        client.resumption = Resumption::disabled();
        client.enable_sni = false;

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(PeerTls { client: Arc::new(client), server: Arc::new(server) })
    }

    /// The name that TLS wants for the far side. Nobody looks at it: keys are compared, not names.
    pub fn server_name() -> ServerName<'static> {
        ServerName::try_from("paxos-peer").expect("a valid DNS name")
    }
}

/// The raw key that the far side of a finished handshake has proven to hold.
pub fn peer_key(certificates: Option<&[CertificateDer<'_>]>) -> Option<PublicKey> {
    raw_key(certificates?.first()?)
}

fn raw_key(spki: &[u8]) -> Option<PublicKey> {
    spki.strip_prefix(&SPKI_HEAD)?.try_into().ok()
}

/// Accepts whoever holds the key of a current member.
#[derive(Debug)]
struct MemberVerifier {
    members: Arc<MemberKeys>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug, thiserror::Error)]
enum KeyRefused {
    #[error("key {0} belongs to no current member")]
    Unknown(String),
    #[error("not a raw Ed25519 key")]
    NotEd25519,
}

impl MemberVerifier {
    fn check(&self, spki: &[u8]) -> Result<(), Error> {
        let refused = match raw_key(spki) {
            None => KeyRefused::NotEd25519,
            Some(key) if self.members.owner(&key).is_some() => return Ok(()),
            Some(key) => KeyRefused::Unknown(crate::identity::hex(&key)),
        };
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused)))))
    }

    fn check_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &spki, signature, algorithms)
    }
}

impl ServerCertVerifier for MemberVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for MemberVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

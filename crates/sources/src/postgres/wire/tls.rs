//! TLS over a connected socket: what of the server's certificate must hold, and what ties a login to it.

use super::address::{Address, Roots, SslMode};
use super::limits;
use super::socket::{Socket, time_left};
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// An encrypted connection.
pub(super) type TlsStream = StreamOwned<ClientConnection, Socket>;

/// Where operating systems keep the authorities that they trust.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Begins TLS on `socket`, on which the server has agreed to it.
pub(super) fn handshake(
    address: &Address,
    host: &str,
    mut socket: Socket,
    deadline: Instant,
) -> Result<TlsStream> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        let message = format!("`{host}` is no name that a certificate can have");
        failure(ErrorKind::Invalid, message, "write a DNS name or an IP address into the address")
    })?;
    let config = config(address)?;
    let mut connection = ClientConnection::new(config, name).map_err(|error| refused(host, error))?;
    shake(&mut connection, &mut socket, deadline).map_err(|error| match error {
        Shake::Tls(error) => refused(host, error),
        Shake::Io(error) => failure(
            ErrorKind::Unavailable,
            format!("`{host}` broke off the beginning of TLS: {error}"),
            "see the server's log, and whether a proxy in between ends such connections",
        ),
    })?;
    Ok(StreamOwned::new(connection, socket))
}

enum Shake {
    Tls(rustls::Error),
    Io(io::Error),
}

impl From<io::Error> for Shake {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn shake(connection: &mut ClientConnection, socket: &mut Socket, deadline: Instant) -> Result<(), Shake> {
    while connection.is_handshaking() {
        while connection.wants_write() {
            connection.write_tls(socket)?;
        }
        if !connection.wants_read() {
            continue;
        }
        socket.set_read_timeout(time_left(deadline)?)?;
        match connection.read_tls(socket) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        }
        if let Err(error) = connection.process_new_packets() {
            // The alert that tells the server why; whether it arrives changes nothing.
            let _told = connection.write_tls(socket).is_ok();
            return Err(Shake::Tls(error));
        }
    }
    while connection.wants_write() {
        connection.write_tls(socket)?;
    }
    Ok(())
}

fn failure(kind: ErrorKind, message: String, hint: &'static str) -> Error {
    Error::new(kind, codes::POSTGRES_TLS, message).with_hint(hint)
}

fn refused(host: &str, error: rustls::Error) -> Error {
    let (what, hint) = match &error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::UnknownIssuer => (
                "is signed by nobody who is trusted".to_owned(),
                "name the file of the authority's certificate with `sslrootcert`",
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                "is for another host".to_owned(),
                "connect by a name that stands in the certificate as `subjectAltName` (the old common name does not count)",
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ("has expired".to_owned(), "renew the server's certificate; check both clocks")
            }
            other => (format!("does not hold: {other}"), "renew the server's certificate"),
        },
        other => {
            let message = format!("no TLS connection with `{host}` comes about: {other}");
            return failure(ErrorKind::Unsupported, message, "let the server use TLS 1.2 or newer")
                .with_source(error);
        }
    };
    failure(ErrorKind::Unauthorized, format!("the certificate of `{host}` {what}"), hint).with_source(error)
}

/// What is checked of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    Chain,
    ChainAndName,
}

fn config(address: &Address) -> Result<Arc<ClientConfig>> {
    let is_known = match &address.roots {
        Roots::Named(_) | Roots::System => true,
        Roots::Usual(path) => path.exists(),
        Roots::Nowhere => false,
    };
    let check = match address.ssl_mode {
        SslMode::VerifyFull => Check::ChainAndName,
        SslMode::VerifyCa => Check::Chain,
        // As libpq does it: who has a file of authorities means it.
        SslMode::Require if is_known => Check::Chain,
        SslMode::Require | SslMode::Prefer | SslMode::Disable => Check::Nothing,
    };
    let (roots, pinned) =
        if check == Check::Nothing { (RootCertStore::empty(), Vec::new()) } else { trusted(&address.roots)? };
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier { check, roots, pinned, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("the TLS library has no protocol: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The trusted authorities, and the same certificates as they are.
fn trusted(roots: &Roots) -> Result<(RootCertStore, Vec<CertificateDer<'static>>)> {
    const HINT: &str =
        "write `sslrootcert=/path/of/the/authority.crt` into the address, or `sslrootcert=system`";
    let path = match roots {
        Roots::Named(path) | Roots::Usual(path) => path.as_path(),
        Roots::System => {
            let found = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
            found.ok_or_else(|| {
                failure(
                    ErrorKind::NotFound,
                    "this system has no list of trusted authorities".into(),
                    "install `ca-certificates`",
                )
            })?
        }
        Roots::Nowhere => {
            return Err(failure(ErrorKind::Invalid, "no file of trusted certificates is named".into(), HINT));
        }
    };
    let wrong = |reason: String| {
        failure(
            ErrorKind::Invalid,
            format!("the trusted certificates in `{}` {reason}", path.display()),
            HINT,
        )
    };
    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limits::CERTIFICATES_BYTES).read_to_end(&mut text))
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("are malformed: {error}")))?;
    let mut store = RootCertStore::empty();
    // One that cannot be used is no reason to use none.
    let (used, _unused) = store.add_parsable_certificates(certificates.iter().cloned());
    if used == 0 { Err(wrong("are none".into())) } else { Ok((store, certificates)) }
}

/// Checks as much of a certificate as the address asks for; signatures of the handshake always.
#[derive(Debug)]
struct Verifier {
    check: Check,
    roots: RootCertStore,
    /// A server's own certificate may be among the trusted ones: self-signed, as PostgreSQL's documentation shows it.
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.check == Check::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        // Who trusts this very certificate needs no authority; its dates then do not count.
        if !self.pinned.iter().any(|pinned| pinned == end_entity) {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        if self.check == Check::ChainAndName {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What SCRAM is tied to: the hash of the server's certificate (RFC 5929, `tls-server-end-point`). `None` where the
/// certificate's signature names no hash, as with Ed25519.
pub(super) fn end_point(stream: &TlsStream) -> Option<Vec<u8>> {
    end_point_of(stream.conn.peer_certificates()?.first()?)
}

fn end_point_of(certificate: &[u8]) -> Option<Vec<u8>> {
    // Object identifiers as they are encoded: RSA and ECDSA with their hashes; MD5 and SHA-1 stand for SHA-256.
    const RSA: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA_SHA2: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    const ECDSA_SHA1: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    let algorithm = signature_algorithm(certificate)?;
    let (last, family) = algorithm.split_last()?;
    let hash = match (family, last) {
        (family, 4 | 5 | 11) if family == RSA => Sha256::digest(certificate).to_vec(),
        (family, 12) if family == RSA => Sha384::digest(certificate).to_vec(),
        (family, 13) if family == RSA => Sha512::digest(certificate).to_vec(),
        (family, 2) if family == ECDSA_SHA2 => Sha256::digest(certificate).to_vec(),
        (family, 3) if family == ECDSA_SHA2 => Sha384::digest(certificate).to_vec(),
        (family, 4) if family == ECDSA_SHA2 => Sha512::digest(certificate).to_vec(),
        _ if algorithm == ECDSA_SHA1 => Sha256::digest(certificate).to_vec(),
        _ => return None,
    };
    Some(hash)
}

/// `SEQUENCE { tbsCertificate, SEQUENCE { algorithm OBJECT IDENTIFIER, … }, … }`: the identifier.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    let (certificate, _) = der(certificate, SEQUENCE)?;
    let (_, rest) = der(certificate, SEQUENCE)?;
    let (algorithm, _) = der(rest, SEQUENCE)?;
    der(algorithm, OBJECT_IDENTIFIER).map(|(identifier, _)| identifier)
}

/// The contents of the value that `bytes` begin with, and what is behind it.
fn der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A certificate's outer shape with this algorithm.
    fn certificate(algorithm: &[u8]) -> Vec<u8> {
        let value = |tag: u8, contents: &[u8]| {
            let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
            [&[tag, 0x82][..], &length, contents].concat()
        };
        let tbs = value(0x30, &[7; 300]);
        let signature = value(0x30, &[value(0x06, algorithm), vec![5, 0]].concat());
        value(0x30, &[tbs, signature, vec![3, 1, 0]].concat())
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let length = |algorithm: &[u8]| end_point_of(&certificate(algorithm)).map(|hash| hash.len());
        let rsa = |last| [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, last];
        let ecdsa = |last| [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, last];
        assert_eq!(
            [5, 11, 12, 13, 10].map(|last| length(&rsa(last))),
            [Some(32), Some(32), Some(48), Some(64), None]
        );
        assert_eq!([2, 3, 4, 1].map(|last| length(&ecdsa(last))), [Some(32), Some(48), Some(64), None]);
        assert_eq!(length(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]), Some(32));
        assert_eq!(length(&[0x2b, 0x65, 0x70]), None, "Ed25519");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..64), at in 0usize..400) {
            prop_assert_eq!(end_point_of(&bytes), None);
            let mut whole = certificate(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]);
            whole.truncate(at);
            bytes.splice(0..0, whole);
            let _hash = end_point_of(&bytes);
        }
    }
}

//! TLS over a connected socket: what of the server's certificate must hold.

use super::socket::{Socket, time_left};
use retoma_core::{Code, Error, ErrorKind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};
use std::borrow::Cow;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// An encrypted connection.
pub(crate) type TlsStream = StreamOwned<ClientConnection, Socket>;

/// Where operating systems keep the authorities that they trust.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The largest file of certificates that is read, in bytes.
const CERTIFICATES_BYTES: u64 = 16 << 20;

/// What is checked of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Nothing: no protection from an active attacker.
    Nothing,
    /// A trusted authority has signed it.
    Chain,
    /// As before, and it is for this host.
    ChainAndName,
}

/// Whose certificates are trusted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trusted<'a> {
    /// The authorities of the operating system.
    System,
    /// Those in this file.
    File(&'a Path),
    /// Nobody was named.
    Nobody,
}

/// What TLS asks of the server, and shows of us.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trust<'a> {
    /// What must hold.
    pub(crate) check: Check,
    /// Who may have signed.
    pub(crate) trusted: Trusted<'a>,
    /// Our own certificate and its key, as files.
    pub(crate) identity: Option<(&'a Path, &'a Path)>,
    /// The parameter of an address that names the trusted file, for hints.
    pub(crate) parameter: &'static str,
    /// The code of all errors.
    pub(crate) code: Code,
}

/// Begins TLS on `socket`, on which the server has agreed to it.
pub(crate) fn handshake(
    trust: &Trust<'_>,
    host: &str,
    mut socket: Socket,
    deadline: Instant,
) -> Result<TlsStream> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        let message = format!("`{host}` is no name that a certificate can have");
        failure(trust, ErrorKind::Invalid, message, "write a DNS name or an IP address into the address")
    })?;
    let config = config(trust)?;
    let mut connection = ClientConnection::new(config, name).map_err(|error| refused(trust, host, error))?;
    shake(&mut connection, &mut socket, deadline).map_err(|error| match error {
        Shake::Tls(error) => refused(trust, host, error),
        Shake::Io(error) => failure(
            trust,
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

fn failure(trust: &Trust<'_>, kind: ErrorKind, message: String, hint: impl Into<Cow<'static, str>>) -> Error {
    Error::new(kind, trust.code, message).with_hint(hint)
}

fn refused(trust: &Trust<'_>, host: &str, error: rustls::Error) -> Error {
    let (what, hint) = match &error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::UnknownIssuer => (
                "is signed by nobody who is trusted".to_owned(),
                format!("name the file of the authority's certificate with `{}`", trust.parameter),
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                "is for another host".to_owned(),
                "connect by a name that stands in the certificate as `subjectAltName` (the old common name does not count)".to_owned(),
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ("has expired".to_owned(), "renew the server's certificate; check both clocks".to_owned())
            }
            other => (format!("does not hold: {other}"), "renew the server's certificate".to_owned()),
        },
        other => {
            let message = format!("no TLS connection with `{host}` comes about: {other}");
            return failure(trust, ErrorKind::Unsupported, message, "let the server use TLS 1.2 or newer")
                .with_source(error);
        }
    };
    failure(trust, ErrorKind::Unauthorized, format!("the certificate of `{host}` {what}"), hint)
        .with_source(error)
}

fn config(trust: &Trust<'_>) -> Result<Arc<ClientConfig>> {
    let check = trust.check;
    let (roots, pinned) =
        if check == Check::Nothing { (RootCertStore::empty(), Vec::new()) } else { trusted(trust)? };
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier { check, roots, pinned, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("the TLS library has no protocol: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match trust.identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(trust, certificate, "our own certificate")?;
            let wrong = |path: &Path, reason: String| {
                let message = format!("the key of our certificate in `{}` {reason}", path.display());
                failure(
                    trust,
                    ErrorKind::Invalid,
                    message,
                    "name the certificate and the key that belongs to it",
                )
            };
            let text = read(key).map_err(|error| wrong(key, format!("cannot be read: {error}")))?;
            let private = PrivateKeyDer::from_pem_slice(&text)
                .map_err(|error| wrong(key, format!("is malformed: {error}")))?;
            let config = config.with_client_auth_cert(chain, private);
            config.map_err(|error| wrong(key, format!("does not fit: {error}")))?
        }
    };
    Ok(Arc::new(config))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(CERTIFICATES_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

/// The certificates in a file; `what` they are, for messages.
fn certificates(trust: &Trust<'_>, path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |reason: String| {
        let hint =
            format!("name a readable file of PEM certificates; trusted ones with `{}=FILE`", trust.parameter);
        failure(trust, ErrorKind::Invalid, format!("{what} in `{}` {reason}", path.display()), hint)
    };
    let text = read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("are malformed: {error}")))
}

/// The trusted authorities, and the same certificates as they are.
fn trusted(trust: &Trust<'_>) -> Result<(RootCertStore, Vec<CertificateDer<'static>>)> {
    let hint = || {
        format!("write `{0}=/path/of/the/authority.crt` into the address, or `{0}=system`", trust.parameter)
    };
    let path = match trust.trusted {
        Trusted::File(path) => path,
        Trusted::System => {
            let found = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
            found.ok_or_else(|| {
                let message = "this system has no list of trusted authorities".to_owned();
                failure(trust, ErrorKind::NotFound, message, "install `ca-certificates`")
            })?
        }
        Trusted::Nobody => {
            let message = "no file of trusted certificates is named".to_owned();
            return Err(failure(trust, ErrorKind::Invalid, message, hint()));
        }
    };
    let certificates = certificates(trust, path, "the trusted certificates")?;
    let mut store = RootCertStore::empty();
    // One that cannot be used is no reason to use none.
    let (used, _unused) = store.add_parsable_certificates(certificates.iter().cloned());
    if used == 0 {
        let message = format!("the trusted certificates in `{}` are none", path.display());
        return Err(failure(trust, ErrorKind::Invalid, message, hint()));
    }
    Ok((store, certificates))
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

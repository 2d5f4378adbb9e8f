//! TLS as PostgreSQL has it: what of the server's certificate must hold, and what ties a login to it.

use super::address::{Address, Roots, SslMode};
use crate::net::socket::Socket;
use crate::net::tls::{self, Check, Trust, Trusted};
use retoma_core::Result;
use retoma_core::error::codes;
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::time::Instant;

pub(super) use crate::net::tls::TlsStream;

/// Begins TLS on `socket`, on which the server has agreed to it.
pub(super) fn handshake(
    address: &Address,
    host: &str,
    socket: Socket,
    deadline: Instant,
) -> Result<TlsStream> {
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
    let trusted = match &address.roots {
        Roots::Named(path) | Roots::Usual(path) => Trusted::File(path),
        Roots::System => Trusted::System,
        Roots::Nowhere => Trusted::Nobody,
    };
    let trust = Trust { check, trusted, identity: None, parameter: "sslrootcert", code: codes::POSTGRES_TLS };
    tls::handshake(&trust, host, socket, deadline)
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

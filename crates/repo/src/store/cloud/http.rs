//! The HTTP client of the cloud stores: TLS with rustls and ring, as everywhere in the program, HTTP/1.1, no redirects.
//!
//! An answer that is an error is cut down to its code and message before the crate sees it: the whole text is of any
//! length, and some servers repeat what was signed, session token included.

use super::pace::Patience;
use async_trait::async_trait;
use futures::StreamExt as _;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::redirect::Policy;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// As much of an error's text is read, in bytes.
const ERROR_LIMIT_BYTES: usize = 64 * 1024;
/// As much of its message is kept, in characters.
const MESSAGE_LIMIT_CHARACTERS: usize = 200;

/// Makes clients with our TLS for the crate.
#[derive(Debug)]
pub(super) struct Connector {
    tls: ClientConfig,
    patience: Patience,
}

impl Connector {
    /// Trusts Mozilla's authorities, and those in the PEM file `roots`.
    ///
    /// # Errors
    /// `Invalid` when that file has no certificates.
    pub(super) fn new(roots: Option<&str>, patience: Patience) -> Result<Self> {
        let mut trusted = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = roots {
            let refused = || {
                let message = format!("the file `{path}` has no certificates of authorities");
                Error::new(ErrorKind::Invalid, codes::STORE_ADDRESS, message)
                    .with_hint("`AWS_CA_BUNDLE` and `SSL_CERT_FILE` name a PEM file, or nothing")
            };
            let certificates: std::result::Result<Vec<_>, _> =
                CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            let (added, _) = trusted.add_parsable_certificates(certificates.map_err(|_| refused())?);
            if added == 0 {
                return Err(refused());
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal(format!("no TLS for stores: {error}")))?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        Ok(Self { tls, patience })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allows_clear = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let client = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(self.tls.clone())
                .https_only(!allows_clear)
                .http1_only()
                .redirect(Policy::none())
                .connect_timeout(self.patience.connect)
                .user_agent(concat!("retoma/", env!("CARGO_PKG_VERSION")))
        };
        let failed = |source| object_store::Error::Generic { store: "http", source: Box::new(source) };
        let reading = client().read_timeout(self.patience.silence).build().map_err(failed)?;
        let writing = client().build().map_err(failed)?;
        Ok(HttpClient::new(Client { reading, writing, patience: self.patience }))
    }
}

/// Requests with a body have a client of their own: the library counts the time in which it sends as silence, and a slow
/// line could then send nothing large.
#[derive(Debug)]
struct Client {
    reading: reqwest::Client,
    writing: reqwest::Client,
    patience: Patience,
}

impl Client {
    async fn send(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let body_bytes = request.body().content_length();
        if body_bytes == 0 {
            return self.reading.call(request).await;
        }
        let limit = self.patience.until_answer(body_bytes);
        tokio::time::timeout(limit, self.writing.call(request)).await.unwrap_or_else(|_| {
            let text = format!("no answer within {} seconds", limit.as_secs_f64());
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, text);
            Err(HttpError::new(HttpErrorKind::Timeout, late))
        })
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let answer = self.send(request).await?;
        if !(answer.status().is_client_error() || answer.status().is_server_error()) {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let summary = summary(&beginning(body).await);
        Ok(HttpResponse::from_parts(parts, summary.into()))
    }
}

/// What of an error's text comes within the limit, and before the connection breaks.
async fn beginning(body: HttpResponseBody) -> String {
    let mut text = Vec::new();
    let mut chunks = body.bytes_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        let room = ERROR_LIMIT_BYTES - text.len();
        text.extend(chunk.iter().take(room));
        if text.len() == ERROR_LIMIT_BYTES {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// `CODE: first line of the message` of an error in XML or JSON; empty for anything else.
fn summary(text: &str) -> String {
    if text.starts_with("No such object") {
        // Google, where contents were asked for; what follows is the name.
        return "notFound: No such object".to_owned();
    }
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(value, _)| value.to_owned())
    };
    let (code, message) = match element("Code") {
        Some(code) => (code, element("Message").unwrap_or_default()),
        None => from_json(text),
    };
    let line = |text: &str| -> String {
        let first = text.lines().next().unwrap_or_default();
        first.chars().filter(|c| !c.is_control()).take(MESSAGE_LIMIT_CHARACTERS).collect()
    };
    match (line(&code), line(&message)) {
        (code, message) if message.is_empty() => code,
        (code, message) => format!("{code}: {message}"),
    }
}

fn from_json(text: &str) -> (String, String) {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return Default::default() };
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    match &value["error"] {
        // Tokens: `{"error": "invalid_grant", "error_description": "…"}`.
        serde_json::Value::String(code) => (code.clone(), text(&value["error_description"])),
        // Google: `{"error": {"code": 404, "message": "…", "errors": [{"reason": "notFound"}]}}`.
        error => (text(&error["errors"][0]["reason"]), text(&error["message"])),
    }
}

#[cfg(test)]
mod tests {
    mod errors;

    use super::*;

    #[test]
    fn an_error_keeps_its_code_and_message_and_nothing_that_was_signed() {
        let amazon = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>It does not match.\n\
                      more</Message><CanonicalRequest>x-amz-security-token:hunter2</CanonicalRequest></Error>";
        assert_eq!(summary(amazon), "SignatureDoesNotMatch: It does not match.");
        assert_eq!(summary("<Code>SlowDown</Code>"), "SlowDown");
        assert_eq!(summary(r#"{"error":"invalid_grant","error_description":"No."}"#), "invalid_grant: No.");
        let google = r#"{"error":{"code":404,"message":"Gone.","errors":[{"reason":"notFound"}]}}"#;
        assert_eq!(summary(google), "notFound: Gone.");
        assert_eq!(summary("No such object: hunter2/x"), "notFound: No such object");
        for other in ["", "hunter2", "<html>hunter2", "<Code>", "{}", "[]", "\"hunter2\""] {
            assert_eq!(summary(other), "", "{other}");
        }
        let long = format!("<Code>{}</Code>", "x".repeat(9999));
        assert_eq!(summary(&long).len(), MESSAGE_LIMIT_CHARACTERS);
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        for text in ["", "no certificate"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                Connector::new(path.to_str(), Patience::default()).unwrap_err().code(),
                codes::STORE_ADDRESS
            );
        }
        assert_eq!(
            Connector::new(Some("/not/there"), Patience::default()).unwrap_err().code(),
            codes::STORE_ADDRESS
        );
        assert!(Connector::new(None, Patience::default()).is_ok());
    }
}

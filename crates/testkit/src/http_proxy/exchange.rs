//! What goes over the way, as tests see and tell it.

/// A request and the server's answer, both whole. For objects of a test's size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// `GET` and so on.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// All of the request's head.
    pub head: String,
    /// The request's content.
    pub body: Vec<u8>,
    /// The answer's status.
    pub status: u16,
    /// All of the answer's head.
    pub answer_head: String,
    /// The answer's content.
    pub answer: Vec<u8>,
}

impl Exchange {
    /// The value of a header of the request.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// An answer that no server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canned {
    /// Status and reason, as in `503 Slow Down`.
    pub status: &'static str,
    /// More headers, each as `name: value`.
    pub headers: Vec<String>,
    /// The content.
    pub body: String,
    /// Another length than that of the content; what is missing never comes.
    pub announced_bytes: Option<u64>,
}

impl Canned {
    /// An error as S3 words it.
    pub fn s3(status: &'static str, code: &str, message: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        Self {
            status,
            headers: vec!["content-type: application/xml".to_owned()],
            body,
            announced_bytes: None,
        }
    }

    /// An answer in JSON.
    pub fn json(status: &'static str, body: String) -> Self {
        Self {
            status,
            headers: vec!["content-type: application/json".to_owned()],
            body,
            announced_bytes: None,
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, header: &str) -> Self {
        self.headers.push(header.to_owned());
        self
    }
}

//! Building requests.

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// One or several messages, built in order and sent as one datagram.
#[derive(Clone, Debug, Default)]
pub struct Request {
    bytes: Vec<u8>,
    /// Where the message now being built begins.
    start: usize,
}

/// A nest that is still open; give it to [`Request::close`].
#[derive(Debug)]
#[must_use = "an open nest has no length"]
pub struct Nest(usize);

impl Request {
    /// `NLM_F_REQUEST`, needed on every request.
    pub const REQUEST: u16 = 1;
    /// `NLM_F_ACK`: answer also when nothing went wrong.
    pub const ACK: u16 = 4;
    /// `NLM_F_DUMP`: answer with everything there is.
    pub const DUMP: u16 = 0x300;
    /// `NLM_F_EXCL`: fail if it exists.
    pub const EXCLUSIVE: u16 = 0x200;
    /// `NLM_F_CREATE`: make it if it does not exist.
    pub const CREATE: u16 = 0x400;
    /// `NLM_F_APPEND`: put it at the end.
    pub const APPEND: u16 = 0x800;

    /// A request of one message with `header` (such as `struct nfgenmsg`) before the attributes.
    pub fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut request = Self::default();
        request.begin(kind, flags, 0, header);
        request
    }

    /// Begins another message in the same datagram.
    pub fn begin(&mut self, kind: u16, flags: u16, sequence: u32, header: &[u8]) -> &mut Self {
        self.start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | Self::REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.raw(header)
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).expect("a request's attribute is short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value)
    }

    /// Appends a text attribute with its closing NUL.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Begins a nest; what is appended until [`Request::close`] lies in it.
    pub fn open(&mut self, kind: u16) -> Nest {
        let nest = Nest(self.bytes.len());
        self.attribute(kind | NESTED, &[]);
        nest
    }

    /// Ends a nest.
    #[expect(clippy::needless_pass_by_value, reason = "a nest is closed once")]
    pub fn close(&mut self, nest: Nest) -> &mut Self {
        let length =
            u16::try_from(self.bytes.len() - nest.0).expect("a request's attribute is short");
        self.patch(nest.0, &length.to_ne_bytes());
        self
    }

    /// The whole datagram.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sets the number that answers to the last begun message will carry.
    pub fn set_sequence(&mut self, sequence: u32) {
        self.patch(self.start + 8, &sequence.to_ne_bytes());
    }

    /// The number that answers to the last begun message carry.
    pub(crate) fn sequence(&self) -> u32 {
        let at = self.start + 8;
        let bytes = self.bytes.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
        bytes.copied().map(u32::from_ne_bytes).unwrap_or_default()
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length =
            u32::try_from(self.bytes.len() - self.start).expect("a request's message is short");
        self.patch(self.start, &length.to_ne_bytes());
        self
    }

    fn patch(&mut self, at: usize, with: &[u8]) {
        self.bytes
            .get_mut(at..at + with.len())
            .expect("patches only what was appended")
            .copy_from_slice(with);
    }
}

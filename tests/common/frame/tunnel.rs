//! The tunnel headers. What is between them and the outer IP header is up to the caller; IPIP, FOU and variant 1 of GUE
//! have no header of their own.

use super::checksum::fill_gre_checksum;
use super::ethernet::TYPE_TEB;

/// VXLAN (RFC 7348, 5), with or without a group policy (draft-smith-vxlan-group-policy, 2.1).
#[derive(Debug, Clone, Copy, Default)]
pub struct Vxlan {
    pub vni: u32,
    pub group: Option<u16>,
}

impl Vxlan {
    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = self.vni.to_be_bytes();
        let [high, low] = self.group.unwrap_or(0).to_be_bytes();
        let flags = if self.group.is_some() { 0x88 } else { 0x08 };
        let mut out = vec![flags, 0, high, low, a, b, c, 0];
        out.extend(payload);
        out
    }
}

/// VXLAN with an Ethernet frame.
pub fn vxlan(vni: u32, payload: &[u8]) -> Vec<u8> {
    Vxlan { vni, group: None }.encode(payload)
}

/// GENEVE (RFC 8926, 3.4).
#[derive(Debug, Clone)]
pub struct Geneve {
    pub vni: u32,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
    /// The O flag.
    pub control: bool,
    /// The C flag.
    pub critical: bool,
    /// EtherType of the payload.
    pub protocol: u16,
}

impl Geneve {
    /// Ethernet payload, no options.
    pub fn new(vni: u32) -> Self {
        Self { vni, options: Vec::new(), control: false, critical: false, protocol: TYPE_TEB }
    }

    /// Adds an option; a critical one sets the C flag.
    #[must_use]
    pub fn option(mut self, class: u16, kind: u8, data: &[u8]) -> Self {
        self.options.extend(geneve_option(class, kind, data));
        self.critical |= kind & 0x80 != 0;
        self
    }

    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = self.vni.to_be_bytes();
        let [high, low] = self.protocol.to_be_bytes();
        assert!(self.options.len().is_multiple_of(4) && self.options.len() < 256, "options of GENEVE");
        let flags = u8::from(self.control) << 7 | u8::from(self.critical) << 6;
        let mut out = vec![(self.options.len() / 4) as u8, flags, high, low, a, b, c, 0];
        out.extend(&self.options);
        out.extend(payload);
        out
    }
}

/// An option of GENEVE (RFC 8926, 3.5); its data is a multiple of four bytes, at most 124.
pub fn geneve_option(class: u16, kind: u8, data: &[u8]) -> Vec<u8> {
    assert!(data.len().is_multiple_of(4) && data.len() <= 124, "an option of {} bytes", data.len());
    let mut out = class.to_be_bytes().to_vec();
    out.extend([kind, (data.len() / 4) as u8]);
    out.extend(data);
    out
}

/// GENEVE with an Ethernet frame, and options as bytes.
pub fn geneve(vni: u32, options: &[u8], payload: &[u8]) -> Vec<u8> {
    Geneve { options: options.to_vec(), ..Geneve::new(vni) }.encode(payload)
}

/// GRE (RFC 2784) with key and sequence number (RFC 2890).
#[derive(Debug, Clone, Copy)]
pub struct Gre {
    /// EtherType of the payload.
    pub protocol: u16,
    pub checksum: bool,
    pub key: Option<u32>,
    pub sequence: Option<u32>,
}

impl Gre {
    /// Nothing but a payload.
    pub fn new(protocol: u16) -> Self {
        Self { protocol, checksum: false, key: None, sequence: None }
    }

    /// The checksum, if there is one, is right.
    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let flag = |bit: u16, set: bool| if set { bit } else { 0 };
        let flags = flag(0x8000, self.checksum)
            | flag(0x2000, self.key.is_some())
            | flag(0x1000, self.sequence.is_some());
        let mut out = [flags.to_be_bytes(), self.protocol.to_be_bytes()].concat();
        if self.checksum {
            out.extend([0; 4]);
        }
        for field in [self.key, self.sequence].into_iter().flatten() {
            out.extend(field.to_be_bytes());
        }
        out.extend(payload);
        if self.checksum {
            fill_gre_checksum(&mut out);
        }
        out
    }
}

/// Variant 0 of GUE (draft-ietf-intarea-gue, 3).
#[derive(Debug, Clone)]
pub struct Gue {
    /// The C flag: `protocol` is a control message's type.
    pub control: bool,
    /// IP protocol number of the payload.
    pub protocol: u8,
    pub flags: u16,
    /// Fields that the flags announce, and private data: a multiple of four bytes.
    pub fields: Vec<u8>,
}

impl Gue {
    /// Nothing but a payload.
    pub fn new(protocol: u8) -> Self {
        Self { control: false, protocol, flags: 0, fields: Vec::new() }
    }

    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        assert!(self.fields.len().is_multiple_of(4) && self.fields.len() < 128, "fields of GUE");
        let first = u8::from(self.control) << 5 | (self.fields.len() / 4) as u8;
        let mut out = vec![first, self.protocol];
        out.extend(self.flags.to_be_bytes());
        out.extend(&self.fields);
        out.extend(payload);
        out
    }
}

/// Messages of GTP-U (3GPP TS 29.281, 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GtpuMessage {
    EchoRequest = 1,
    EchoResponse = 2,
    ErrorIndication = 26,
    EndMarker = 254,
    GPdu = 255,
}

/// GTP-U (3GPP TS 29.281, 5.1).
#[derive(Debug, Clone)]
pub struct Gtpu {
    pub message: GtpuMessage,
    pub teid: u32,
    /// The S flag and its field.
    pub sequence: Option<u16>,
    /// The PN flag and its field.
    pub n_pdu: Option<u8>,
    /// The E flag: extension headers, type and content. A content is a multiple of four bytes less the two of its
    /// length and of the next type.
    pub extensions: Vec<(u8, Vec<u8>)>,
}

impl Gtpu {
    /// Nothing but a payload.
    pub fn new(teid: u32) -> Self {
        Self { message: GtpuMessage::GPdu, teid, sequence: None, n_pdu: None, extensions: Vec::new() }
    }

    /// Adds a PDU session container (3GPP TS 38.415, 5.5.2): type UL or DL, and a QoS flow.
    #[must_use]
    pub fn pdu_session(mut self, uplink: bool, qfi: u8) -> Self {
        assert!(qfi < 64, "a QFI has 6 bits");
        self.extensions.push((0x85, vec![u8::from(uplink) << 4, qfi]));
        self
    }

    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        let flags = flag(4, !self.extensions.is_empty())
            | flag(2, self.sequence.is_some())
            | flag(1, self.n_pdu.is_some());
        let mut rest = Vec::new();
        if flags != 0 {
            // All of these fields are there if one is.
            rest.extend(self.sequence.unwrap_or(0).to_be_bytes());
            rest.push(self.n_pdu.unwrap_or(0));
            for (kind, content) in &self.extensions {
                assert_eq!(content.len() % 4, 2, "an extension header is a multiple of 4 bytes");
                rest.extend([*kind, (content.len() / 4 + 1) as u8]);
                rest.extend(content);
            }
            rest.push(0);
        }
        rest.extend(payload);
        let length = u16::try_from(rest.len()).expect("a GTP-U message has at most 65535 bytes");
        let mut out = vec![0x30 | flags, self.message as u8];
        out.extend(length.to_be_bytes());
        out.extend(self.teid.to_be_bytes());
        out.extend(rest);
        out
    }
}

/// A G-PDU with an IP packet.
pub fn gtpu(teid: u32, payload: &[u8]) -> Vec<u8> {
    Gtpu::new(teid).encode(payload)
}

//! TLS of a subscriber's connection. rustls makes the handshake. Once the server has answered it is
//! dropped, as in the server, because a million of it would not fit beside the server on one machine.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::{CipherSuite, ClientConfig, ClientConnection};

use super::connection::End;
use crate::ring::tls::records::{Fate, Records, whole_records};
use crate::ring::tls::secrets::{SecretTap, Secrets};

/// What seals and opens a connection's bytes.
pub(super) struct Sealed {
    /// Received, and not opened yet.
    received: Vec<u8>,
    /// Opened, and not read yet; rustls keeps its own.
    opened: Vec<u8>,
    /// Sealed, and not sent yet; rustls keeps its own.
    to_send: Vec<u8>,
    /// Until the handshake is over and the server has answered.
    shaking: Option<Box<Shaking>>,
    /// From then on, if the cipher is ours.
    records: Option<Records>,
    /// Whether and how the records have ended.
    fate: Fate,
}

/// rustls, and what is learned from it.
struct Shaking {
    tls: ClientConnection,
    secrets: Secrets,
    is_answered: bool,
}

/// What our records need of a configuration.
pub(super) fn prepare(config: &mut ClientConfig) {
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(SecretTap);
}

impl Sealed {
    pub fn new(tls: ClientConnection) -> Self {
        let shaking = Shaking { tls, secrets: Secrets::default(), is_answered: false };
        Self {
            received: Vec::new(),
            opened: Vec::new(),
            to_send: Vec::new(),
            shaking: Some(Box::new(shaking)),
            records: None,
            fate: Fate::Open,
        }
    }

    /// Takes bytes to be sealed and sent, once there are keys.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(of) = &mut self.shaking {
            of.tls.writer().write_all(bytes)?;
        } else if let Some(records) = &mut self.records {
            records.seal(&mut self.to_send, bytes);
        }
        Ok(())
    }

    /// Sealed bytes to be sent.
    pub fn take_sealed(&mut self) -> io::Result<Vec<u8>> {
        let mut sealed = std::mem::take(&mut self.to_send);
        if let Some(of) = &mut self.shaking {
            while of.tls.wants_write() {
                of.tls.write_tls(&mut sealed)?;
            }
            of.secrets.take_logged();
        }
        Ok(sealed)
    }

    /// Takes bytes from the socket. An incomplete record waits here, so that rustls holds no part of it
    /// when it is dropped.
    pub fn received(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.received.extend_from_slice(bytes);
        let Self { received, opened, shaking, records, fate, .. } = self;
        if let Some(of) = shaking {
            let whole = whole_records(received);
            of.take(&received[..whole])?;
            received.drain(..whole);
        } else if let Some(records) = records {
            *fate = records.open(received, opened);
        }
        Ok(())
    }

    /// Reads opened bytes, at most as many as fit; 0: none are there.
    pub fn read(&mut self, to: &mut [u8]) -> Result<usize, End> {
        if let Some(of) = &mut self.shaking {
            return of.read(to);
        }
        let count = self.opened.len().min(to.len());
        to[..count].copy_from_slice(&self.opened[..count]);
        self.opened.drain(..count);
        match self.fate {
            Fate::Closed if count == 0 => Err(End::Closed),
            Fate::Failed if count == 0 => Err(End::Io(io::ErrorKind::InvalidData.into())),
            _ => Ok(count),
        }
    }

    /// Nothing more is there for now: frees what an idle connection does not need.
    pub fn rest(&mut self) -> Result<(), End> {
        for buffer in [&mut self.received, &mut self.opened, &mut self.to_send] {
            if buffer.is_empty() {
                *buffer = Vec::new();
            }
        }
        let is_between = self.received.is_empty();
        if let Some(of) = self.shaking.take_if(|of| is_between && of.may_go()) {
            let records = of.hand_over();
            self.records = Some(records.map_err(|error| End::Io(io::Error::other(error)))?);
        }
        Ok(())
    }
}

impl Shaking {
    fn take(&mut self, mut records: &[u8]) -> Result<(), End> {
        while !records.is_empty() {
            self.tls.read_tls(&mut records).map_err(End::Io)?;
            let processed = self.tls.process_new_packets();
            self.secrets.take_logged();
            processed.map_err(|error| End::Io(io::Error::other(error)))?;
        }
        Ok(())
    }

    fn read(&mut self, to: &mut [u8]) -> Result<usize, End> {
        match self.tls.reader().read(to) {
            Ok(0) => Err(End::Closed),
            Ok(count) => {
                self.is_answered = true;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(End::Io(error)),
        }
    }

    /// Whether our records can go on in its place. A session ticket, which they do not know, comes
    /// before an answer.
    fn may_go(&self) -> bool {
        let suite = self.tls.negotiated_cipher_suite().map(|suite| suite.suite());
        let is_ours = suite == Some(CipherSuite::TLS13_AES_128_GCM_SHA256);
        self.is_answered && is_ours && !self.tls.wants_write()
    }

    fn hand_over(self) -> Result<Records, rustls::Error> {
        let Self { tls, secrets: Secrets { client, server }, .. } = self;
        let extracted = tls.dangerous_extract_secrets()?;
        let records = Records::new((&client, extracted.tx.0), (&server, extracted.rx.0));
        records.ok_or(rustls::Error::HandshakeNotComplete)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

//! Field compression (RFC 7541): a decoder for what clients send, and an encoder without a table.
//!
//! Fields are handed on one by one and never gathered here: an entry that a few bytes name again and
//! again takes no memory.

mod decode;
pub mod encode;
mod huffman;
mod table;

pub use self::decode::{Decoder, Scratch};
pub use self::table::ENTRY_OVERHEAD;

/// Why a field block can't be decoded. The connection ends: the tables of both sides differ from
/// here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HpackError {
    /// The block ends within a field.
    Truncated,
    /// A number larger than any length or index here.
    IntegerTooLarge,
    /// No such entry.
    Index,
    /// A string is not valid Huffman code.
    Huffman,
    /// The table shall be larger than we allow, or change after a field.
    TableSize,
}

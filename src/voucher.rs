//! Streaming payment channels without a server: what a payer signs and an agent checks, byte for byte, and when each of them should
//! stop. Nothing here asks the market or keeps anything; `docs/channels.md` has the layouts as tables and the whole procedure.
//!
//! ```
//! use zerostate::voucher::{self, ChannelConfig, Voucher};
//!
//! // The keys of RFC 8032 §7.1: the payer has the first, the market the second.
//! let payer = voucher::read_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")?;
//! let market = voucher::read_hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")?;
//! let instance_id = voucher::instance_id(&market);
//! let channel = ChannelConfig {
//!     instance_id,
//!     payer: [0x11; 16],
//!     payee: [0x22; 16],
//!     signer: voucher::public_key(&payer),
//!     asset: voucher::asset("USD")?,
//!     scale: 6,
//!     settle_delay_s: 900,
//!     expires_at: 1_800_000_000,
//!     salt: [0; 32],
//! };
//! let channel_id = channel.id();
//! assert_eq!(hex::encode(channel_id), "791238148e7beccd861213d122bd5253487d1d7ac46af6cca2c3d01d946435cf");
//!
//! let promise = Voucher {
//!     instance_id,
//!     channel_id,
//!     nonce: 1,
//!     cumulative: 250_000,
//!     valid_until: 1_790_000_000,
//!     context_hash: voucher::context_hash(b"task:demo"),
//! };
//! let signature = promise.sign(&payer);
//! assert_eq!(
//!     hex::encode(signature),
//!     "3fe35d9f307340ed24275a3681c47d7a98b70d0c2b64a1a5f0ad25f525f52eb4\
//!      2dadc56472d0ec40113d31ead1a267880b4795f15bdf3a90ecafb2887e51190c"
//! );
//! promise.verify(&channel.signer, &signature)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes of every message that is signed.
pub const MESSAGE_BYTES: usize = 136;

const INSTANCE_TAG: &[u8; 17] = b"ZSPC-INSTANCE-v1\0";
const CHANNEL_TAG: &[u8; 16] = b"ZSPC-CHANNEL-v1\0";
const VOUCHER_TAG: [u8; 16] = *b"ZSPC-VOUCHER-v1\0";
const CLOSE_TAG: [u8; 16] = *b"ZSPC-COOPCLS-v1\0";

/// What signed messages name a market by, so that none is good in another: `SHA256("ZSPC-INSTANCE-v1\0" ‖ public key)`.
#[must_use]
pub fn instance_id(public_key: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(INSTANCE_TAG).chain_update(public_key).finalize().into()
}

/// What a voucher says that it pays for: the SHA-256 of whatever both sides agree on. 32 zero bytes say nothing.
#[must_use]
pub fn context_hash(about: &[u8]) -> [u8; 32] {
    Sha256::digest(about).into()
}

/// The Ed25519 public key of a secret key.
#[must_use]
pub fn public_key(secret: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(secret).verifying_key().to_bytes()
}

/// A text or some bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Hex has one spelling here.
    #[error("must be {0} bytes as lower-case hex")]
    Hex(usize),
    /// Numbers are decimal, without a sign or leading zeros.
    #[error("must be a whole number from 0 to 18446744073709551615 in plain digits")]
    Number,
    /// The short name of what is paid in.
    #[error("must be 1 to 8 characters from A to Z and 0 to 9")]
    Asset,
    /// Another length, or another kind of message.
    #[error("is not the {MESSAGE_BYTES} bytes of this kind of message")]
    Message,
}

/// Why a signature counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// No point of the curve, a point of small order, or not in its one encoding.
    #[error("the public key is not a usable Ed25519 key")]
    PublicKey,
    /// Made by another key, over other bytes, or not in its one encoding.
    #[error("the signature is not that of this key over this message")]
    Signature,
}

/// Reads bytes from lower-case hex; nothing else is accepted, so that every value has one spelling.
pub fn read_hex<const N: usize>(text: &str) -> Result<[u8; N], Unreadable> {
    let lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let bytes = if lower { hex::decode(text).ok() } else { None };
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(Unreadable::Hex(N))
}

/// Reads a number of 64 bits without sign; nothing but plain digits is accepted, so that every value has one spelling.
pub fn read_number(text: &str) -> Result<u64, Unreadable> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(Unreadable::Number)
}

/// The short name of what is paid in, filled up with zeros.
pub fn asset(code: &str) -> Result<[u8; 8], Unreadable> {
    let named = code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    if code.is_empty() || code.len() > 8 || !named {
        return Err(Unreadable::Asset);
    }
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(code.bytes()).for_each(|(byte, letter)| *byte = letter);
    Ok(bytes)
}

/// Checks that some bytes are an Ed25519 public key that can be trusted to belong to one secret key: a point of the curve in its
/// one encoding that is not of small order.
pub fn check_public_key(bytes: &[u8; 32]) -> Result<(), Unsigned> {
    usable_key(bytes).map(|_| ())
}

fn usable_key(bytes: &[u8; 32]) -> Result<VerifyingKey, Unsigned> {
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| Unsigned::PublicKey)?;
    let canonical = key.to_edwards().compress().to_bytes() == *bytes;
    if canonical && !key.is_weak() { Ok(key) } else { Err(Unsigned::PublicKey) }
}

fn verify(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), Unsigned> {
    usable_key(public_key)?.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| Unsigned::Signature)
}

/// Writes parts one behind the other.
fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(byte, part)| *byte = *part);
    bytes
}

/// What a streaming channel is; nothing of it ever changes. Its hash is the channel's name in everything that is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// The market: see [`instance_id`].
    pub instance_id: [u8; 32],
    /// The payer's id there.
    pub payer: [u8; 16],
    /// The agent's id there.
    pub payee: [u8; 16],
    /// The Ed25519 public key that signs vouchers; zeros for a payer who pays by calls to the market instead.
    pub signer: [u8; 32],
    /// What is paid in: see [`asset`].
    pub asset: [u8; 8],
    /// Amounts are in units of 10^-scale.
    pub scale: u8,
    /// How many seconds the agent has for its last claims when the payer asks for the close.
    pub settle_delay_s: u32,
    /// When it ends at the latest, in seconds since 1970.
    pub expires_at: u64,
    /// What makes this channel differ from every other of the same parties.
    pub salt: [u8; 32],
}

impl ChannelConfig {
    /// What vouchers name the channel by: the SHA-256 of a tag and all fields in the order above, numbers big-endian.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(CHANNEL_TAG)
            .chain_update(self.instance_id)
            .chain_update(self.payer)
            .chain_update(self.payee)
            .chain_update(self.signer)
            .chain_update(self.asset)
            .chain_update([self.scale])
            .chain_update(self.settle_delay_s.to_be_bytes())
            .chain_update(self.expires_at.to_be_bytes())
            .chain_update(self.salt)
            .finalize()
            .into()
    }
}

/// A payer's promise: of this channel, the agent may have `cumulative` in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voucher {
    pub instance_id: [u8; 32],
    pub channel_id: [u8; 32],
    /// Grows with every voucher of the channel; the first is 1.
    pub nonce: u64,
    /// What the agent may have in all, from the first payment on; never less than the voucher before said.
    pub cumulative: u64,
    /// Until when it may be claimed, in seconds since 1970; 0 for as long as the channel lives.
    pub valid_until: u64,
    /// What it pays for: see [`context_hash`]; zeros for nothing in particular.
    pub context_hash: [u8; 32],
}

/// How both parties share out a channel at once: each signs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CooperativeClose {
    pub instance_id: [u8; 32],
    pub channel_id: [u8; 32],
    /// More than that of every voucher that was claimed.
    pub nonce: u64,
    /// What the agent has in all; the rest of the deposit goes back to the payer.
    pub final_cumulative: u64,
    /// Until when it may be used, in seconds since 1970. It always has an end.
    pub valid_until: u64,
}

/// The numbers of a message behind its tag.
struct Fields {
    instance_id: [u8; 32],
    channel_id: [u8; 32],
    nonce: u64,
    amount: u64,
    valid_until: u64,
    tail: [u8; 32],
}

fn write(tag: [u8; 16], fields: &Fields) -> [u8; MESSAGE_BYTES] {
    joined(&[
        &tag,
        &fields.instance_id,
        &fields.channel_id,
        &fields.nonce.to_be_bytes(),
        &fields.amount.to_be_bytes(),
        &fields.valid_until.to_be_bytes(),
        &fields.tail,
    ])
}

fn read(tag: [u8; 16], message: &[u8]) -> Option<Fields> {
    let rest = message.strip_prefix(&tag)?;
    let (instance_id, rest) = rest.split_first_chunk()?;
    let (channel_id, rest) = rest.split_first_chunk()?;
    let (nonce, rest) = rest.split_first_chunk()?;
    let (amount, rest) = rest.split_first_chunk()?;
    let (valid_until, rest) = rest.split_first_chunk()?;
    Some(Fields {
        instance_id: *instance_id,
        channel_id: *channel_id,
        nonce: u64::from_be_bytes(*nonce),
        amount: u64::from_be_bytes(*amount),
        valid_until: u64::from_be_bytes(*valid_until),
        tail: rest.try_into().ok()?,
    })
}

impl Voucher {
    /// The bytes that are signed.
    #[must_use]
    pub fn message(&self) -> [u8; MESSAGE_BYTES] {
        let Self { instance_id, channel_id, nonce, cumulative, valid_until, context_hash } = *self;
        write(
            VOUCHER_TAG,
            &Fields { instance_id, channel_id, nonce, amount: cumulative, valid_until, tail: context_hash },
        )
    }

    /// Reads what [`Voucher::message`] wrote.
    pub fn read(message: &[u8]) -> Result<Self, Unreadable> {
        let Fields { instance_id, channel_id, nonce, amount, valid_until, tail } =
            read(VOUCHER_TAG, message).ok_or(Unreadable::Message)?;
        Ok(Self { instance_id, channel_id, nonce, cumulative: amount, valid_until, context_hash: tail })
    }

    /// Signs it with an Ed25519 secret key.
    #[must_use]
    pub fn sign(&self, secret: &[u8; 32]) -> [u8; 64] {
        SigningKey::from_bytes(secret).sign(&self.message()).to_bytes()
    }

    /// Checks a signature strictly: no weak keys, one encoding for each value.
    pub fn verify(&self, signer: &[u8; 32], signature: &[u8; 64]) -> Result<(), Unsigned> {
        verify(signer, &self.message(), signature)
    }
}

impl CooperativeClose {
    /// The bytes that are signed.
    #[must_use]
    pub fn message(&self) -> [u8; MESSAGE_BYTES] {
        let Self { instance_id, channel_id, nonce, final_cumulative, valid_until } = *self;
        let fields = Fields { instance_id, channel_id, nonce, amount: final_cumulative, valid_until, tail: [0; 32] };
        write(CLOSE_TAG, &fields)
    }

    /// Reads what [`CooperativeClose::message`] wrote.
    pub fn read(message: &[u8]) -> Result<Self, Unreadable> {
        let fields = read(CLOSE_TAG, message).filter(|fields| fields.tail == [0; 32]);
        let Fields { instance_id, channel_id, nonce, amount, valid_until, .. } = fields.ok_or(Unreadable::Message)?;
        Ok(Self { instance_id, channel_id, nonce, final_cumulative: amount, valid_until })
    }

    /// Signs it with an Ed25519 secret key.
    #[must_use]
    pub fn sign(&self, secret: &[u8; 32]) -> [u8; 64] {
        SigningKey::from_bytes(secret).sign(&self.message()).to_bytes()
    }

    /// Checks a signature strictly: no weak keys, one encoding for each value.
    pub fn verify(&self, signer: &[u8; 32], signature: &[u8; 64]) -> Result<(), Unsigned> {
        verify(signer, &self.message(), signature)
    }
}

/// A voucher with its signature, as it goes from the payer to the agent and from there to the market. As JSON: an object of texts,
/// bytes in lower-case hex, numbers in plain digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Spelled", into = "Spelled")]
pub struct SignedVoucher {
    pub voucher: Voucher,
    pub signature: [u8; 64],
}

/// A cooperative close with the signature of one party. As JSON it looks like a [`SignedVoucher`] with `finalCumulative` in the
/// place of `cumulative`, and without `contextHash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SpelledClose", into = "SpelledClose")]
pub struct SignedClose {
    pub close: CooperativeClose,
    pub signature: [u8; 64],
}

/// How a [`SignedVoucher`] is spelled.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spelled {
    instance_id: String,
    channel_id: String,
    nonce: String,
    cumulative: String,
    valid_until: String,
    context_hash: String,
    signature: String,
}

/// How a [`SignedClose`] is spelled.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpelledClose {
    instance_id: String,
    channel_id: String,
    nonce: String,
    final_cumulative: String,
    valid_until: String,
    signature: String,
}

/// A field of a text form that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {why}")]
pub struct BadField {
    pub field: &'static str,
    pub why: Unreadable,
}

fn bytes_of<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], BadField> {
    read_hex(text).map_err(|why| BadField { field, why })
}

fn number_of(field: &'static str, text: &str) -> Result<u64, BadField> {
    read_number(text).map_err(|why| BadField { field, why })
}

impl TryFrom<Spelled> for SignedVoucher {
    type Error = BadField;

    fn try_from(text: Spelled) -> Result<Self, BadField> {
        let voucher = Voucher {
            instance_id: bytes_of("instanceId", &text.instance_id)?,
            channel_id: bytes_of("channelId", &text.channel_id)?,
            nonce: number_of("nonce", &text.nonce)?,
            cumulative: number_of("cumulative", &text.cumulative)?,
            valid_until: number_of("validUntil", &text.valid_until)?,
            context_hash: bytes_of("contextHash", &text.context_hash)?,
        };
        Ok(Self { voucher, signature: bytes_of("signature", &text.signature)? })
    }
}

impl From<SignedVoucher> for Spelled {
    fn from(SignedVoucher { voucher, signature }: SignedVoucher) -> Self {
        Self {
            instance_id: hex::encode(voucher.instance_id),
            channel_id: hex::encode(voucher.channel_id),
            nonce: voucher.nonce.to_string(),
            cumulative: voucher.cumulative.to_string(),
            valid_until: voucher.valid_until.to_string(),
            context_hash: hex::encode(voucher.context_hash),
            signature: hex::encode(signature),
        }
    }
}

impl TryFrom<SpelledClose> for SignedClose {
    type Error = BadField;

    fn try_from(text: SpelledClose) -> Result<Self, BadField> {
        let close = CooperativeClose {
            instance_id: bytes_of("instanceId", &text.instance_id)?,
            channel_id: bytes_of("channelId", &text.channel_id)?,
            nonce: number_of("nonce", &text.nonce)?,
            final_cumulative: number_of("finalCumulative", &text.final_cumulative)?,
            valid_until: number_of("validUntil", &text.valid_until)?,
        };
        Ok(Self { close, signature: bytes_of("signature", &text.signature)? })
    }
}

impl From<SignedClose> for SpelledClose {
    fn from(SignedClose { close, signature }: SignedClose) -> Self {
        Self {
            instance_id: hex::encode(close.instance_id),
            channel_id: hex::encode(close.channel_id),
            nonce: close.nonce.to_string(),
            final_cumulative: close.final_cumulative.to_string(),
            valid_until: close.valid_until.to_string(),
            signature: hex::encode(signature),
        }
    }
}

/// Why a payer signs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPaid {
    /// A voucher for nothing would only use up a nonce.
    #[error("the amount must be more than zero")]
    Nothing,
    /// The market would not honour it.
    #[error("the deposit does not cover it")]
    AboveDeposit,
    /// There is no further nonce or amount.
    #[error("the channel is used up")]
    UsedUp,
    /// What somebody says the payer signed is about another channel.
    #[error("it is about another channel")]
    AnotherChannel,
    /// What somebody says the payer signed does not carry the payer's signature.
    #[error("{0}")]
    NotOurs(#[from] Unsigned),
}

/// The payer's side of one channel: counts up and never signs the same nonce twice, never more than the deposit.
///
/// It believes nobody's word about what was signed before but its own signature ([`Payer::adopt`]): whoever could talk a payer into
/// a higher sum would have it sign its whole deposit away. Share it between threads under a lock; the count and the signature are
/// one step.
#[derive(Clone)]
pub struct Payer {
    instance_id: [u8; 32],
    channel_id: [u8; 32],
    secret: [u8; 32],
    deposit: u64,
    nonce: u64,
    signed: u64,
}

impl fmt::Debug for Payer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payer")
            .field("channel_id", &hex::encode(self.channel_id))
            .field("nonce", &self.nonce)
            .field("signed", &self.signed)
            .finish_non_exhaustive()
    }
}

impl Payer {
    /// A payer who has signed nothing yet. `deposit` is what the payer put in and nobody else's figure.
    #[must_use]
    pub fn new(instance_id: [u8; 32], channel_id: [u8; 32], secret: [u8; 32], deposit: u64) -> Self {
        Self { instance_id, channel_id, secret, deposit, nonce: 0, signed: 0 }
    }

    /// What was signed in all.
    #[must_use]
    pub fn signed(&self) -> u64 {
        self.signed
    }

    /// Says that the payer put `amount` more in.
    pub fn top_up(&mut self, amount: u64) -> Result<(), NotPaid> {
        self.deposit = self.deposit.checked_add(amount).ok_or(NotPaid::UsedUp)?;
        Ok(())
    }

    /// Signs a voucher for `amount` more than the one before.
    pub fn pay(&mut self, amount: u64, valid_until: u64, context_hash: [u8; 32]) -> Result<SignedVoucher, NotPaid> {
        if amount == 0 {
            return Err(NotPaid::Nothing);
        }
        let cumulative = self.signed.checked_add(amount).ok_or(NotPaid::UsedUp)?;
        if cumulative > self.deposit {
            return Err(NotPaid::AboveDeposit);
        }
        let nonce = self.nonce.checked_add(1).ok_or(NotPaid::UsedUp)?;
        let Self { instance_id, channel_id, .. } = *self;
        let voucher = Voucher { instance_id, channel_id, nonce, cumulative, valid_until, context_hash };
        (self.nonce, self.signed) = (nonce, cumulative);
        Ok(SignedVoucher { voucher, signature: voucher.sign(&self.secret) })
    }

    /// Takes up where an earlier run of this payer ended, by a voucher that somebody else kept: only one that the payer itself
    /// signed, and never backwards. Answers whether it said anything new.
    pub fn adopt(&mut self, kept: &SignedVoucher) -> Result<bool, NotPaid> {
        let voucher = &kept.voucher;
        if (voucher.instance_id, voucher.channel_id) != (self.instance_id, self.channel_id) {
            return Err(NotPaid::AnotherChannel);
        }
        voucher.verify(&public_key(&self.secret), &kept.signature)?;
        let newer = voucher.nonce > self.nonce || voucher.cumulative > self.signed;
        self.nonce = self.nonce.max(voucher.nonce);
        self.signed = self.signed.max(voucher.cumulative);
        Ok(newer)
    }
}

/// The state of a channel as the market tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Open,
    Closing,
    Closed,
}

/// What the market says about a channel now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub standing: Standing,
    pub deposit: u64,
    /// What was paid out in all.
    pub paid: u64,
}

/// Why an agent does not serve for a voucher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// The payer asked for the close, or it is over. What was signed before should be claimed now.
    #[error("the channel is not open any more")]
    NotOpen,
    /// Too little time is left to claim.
    #[error("the channel ends too soon")]
    EndsSoon,
    /// The voucher names another channel or market.
    #[error("it is for another channel")]
    AnotherChannel,
    /// It is not signed by the channel's key.
    #[error("{0}")]
    NotSigned(#[from] Unsigned),
    /// Too little time is left to claim this voucher.
    #[error("the voucher ends too soon")]
    VoucherEndsSoon,
    /// It does not count further than the newest one, or says less.
    #[error("it is not newer than the voucher before")]
    NotNewer,
    /// It promises less than the price beyond what was promised before.
    #[error("it pays less than the price")]
    TooLittle,
    /// The market would not honour it.
    #[error("the deposit does not cover it")]
    AboveDeposit,
}

/// The agent's side of one channel: whether to serve for a voucher, and when to claim. It keeps the newest voucher in memory and
/// nothing on disk: write down what [`Payee::accept`] accepted before you serve, and give it back by [`Payee::resume`].
#[derive(Clone, Debug)]
pub struct Payee {
    instance_id: [u8; 32],
    channel_id: [u8; 32],
    signer: [u8; 32],
    expires_at: u64,
    margin_s: u64,
    best: Option<SignedVoucher>,
}

impl Payee {
    /// An agent that takes vouchers for a channel until `margin_s` seconds before its end: the time that it needs to claim for sure.
    #[must_use]
    pub fn new(channel: &ChannelConfig, margin_s: u64) -> Self {
        Self {
            instance_id: channel.instance_id,
            channel_id: channel.id(),
            signer: channel.signer,
            expires_at: channel.expires_at,
            margin_s,
            best: None,
        }
    }

    /// Goes on with the newest voucher that was written down.
    pub fn resume(&mut self, kept: SignedVoucher) -> Result<(), NotServed> {
        self.check_origin(&kept)?;
        let newer = self.best.is_none_or(|best| kept.voucher.nonce > best.voucher.nonce);
        if newer {
            self.best = Some(kept);
        }
        Ok(())
    }

    /// The newest voucher.
    #[must_use]
    pub fn best(&self) -> Option<&SignedVoucher> {
        self.best.as_ref()
    }

    fn check_origin(&self, offered: &SignedVoucher) -> Result<(), NotServed> {
        let voucher = &offered.voucher;
        if (voucher.instance_id, voucher.channel_id) != (self.instance_id, self.channel_id) {
            return Err(NotServed::AnotherChannel);
        }
        Ok(voucher.verify(&self.signer, &offered.signature)?)
    }

    /// Decides whether a service of `price` may be given for a voucher at `now`, in seconds since 1970, seeing the channel as the
    /// market told it a moment ago. Answers what the voucher promises beyond the one before, which is at least the price. Write the
    /// voucher down before you serve. A refusal changes nothing.
    pub fn accept(&mut self, offered: &SignedVoucher, price: u64, seen: &Seen, now: u64) -> Result<u64, NotServed> {
        let leaves_time = |end: u64| end.saturating_sub(now) > self.margin_s;
        match seen.standing {
            Standing::Open => {}
            Standing::Closing | Standing::Closed => return Err(NotServed::NotOpen),
        }
        if !leaves_time(self.expires_at) {
            return Err(NotServed::EndsSoon);
        }
        self.check_origin(offered)?;
        let voucher = &offered.voucher;
        if voucher.valid_until != 0 && !leaves_time(voucher.valid_until) {
            return Err(NotServed::VoucherEndsSoon);
        }
        let (nonce, promised) = self.best.map_or((0, 0), |best| (best.voucher.nonce, best.voucher.cumulative));
        let promised = promised.max(seen.paid);
        let more = voucher.cumulative.checked_sub(promised).filter(|more| *more > 0 && voucher.nonce > nonce);
        let more = more.ok_or(NotServed::NotNewer)?;
        if more < price {
            return Err(NotServed::TooLittle);
        }
        if voucher.cumulative > seen.deposit {
            return Err(NotServed::AboveDeposit);
        }
        self.best = Some(*offered);
        Ok(more)
    }

    /// The voucher to claim now, if it is time: more than `threshold` is not claimed yet, or the payer asked for the close, or the
    /// end is near.
    #[must_use]
    pub fn to_claim(&self, threshold: u64, seen: &Seen, now: u64) -> Option<&SignedVoucher> {
        let best = self.best.as_ref()?;
        let unclaimed = best.voucher.cumulative.saturating_sub(seen.paid);
        let urgent = match seen.standing {
            Standing::Open => self.expires_at.saturating_sub(now) <= self.margin_s,
            Standing::Closing => true,
            Standing::Closed => return None,
        };
        (unclaimed > 0 && (urgent || unclaimed > threshold)).then_some(best)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    /// The secret keys of RFC 8032 §7.1, tests 1 and 2.
    const PAYER: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const MARKET: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";

    fn payer() -> [u8; 32] {
        read_hex(PAYER).unwrap()
    }

    fn channel() -> ChannelConfig {
        ChannelConfig {
            instance_id: instance_id(&public_key(&read_hex(MARKET).unwrap())),
            payer: [0x11; 16],
            payee: [0x22; 16],
            signer: public_key(&payer()),
            asset: asset("USD").unwrap(),
            scale: 6,
            settle_delay_s: 900,
            expires_at: 1_800_000_000,
            salt: [0; 32],
        }
    }

    fn voucher(nonce: u64, cumulative: u64) -> SignedVoucher {
        let ChannelConfig { instance_id, .. } = channel();
        let channel_id = channel().id();
        let voucher = Voucher { instance_id, channel_id, nonce, cumulative, valid_until: 0, context_hash: [0; 32] };
        SignedVoucher { voucher, signature: voucher.sign(&payer()) }
    }

    fn close() -> CooperativeClose {
        let ChannelConfig { instance_id, .. } = channel();
        let channel_id = channel().id();
        CooperativeClose { instance_id, channel_id, nonce: 1, final_cumulative: 5, valid_until: 7 }
    }

    const SEEN: Seen = Seen { standing: Standing::Open, deposit: 100, paid: 0 };
    const NOW: u64 = 1_700_000_000;

    #[test]
    fn the_layout_is_the_one_that_is_published() {
        let SignedVoucher { voucher, .. } = voucher(0x0102, 0x0304);
        let message = voucher.message();
        assert_eq!(message.len(), 136);
        assert_eq!(&message[..16], b"ZSPC-VOUCHER-v1\0");
        assert_eq!(message[16..48], channel().instance_id);
        assert_eq!(message[48..80], channel().id());
        assert_eq!(message[80..88], [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(message[88..96], [0, 0, 0, 0, 0, 0, 3, 4]);
        assert_eq!(message[96..], [0; 40]);
        let message = close().message();
        assert_eq!(&message[..16], b"ZSPC-COOPCLS-v1\0");
        assert_eq!((message[87], message[95], message[103]), (1, 5, 7));
    }

    #[test]
    fn every_field_of_the_configuration_changes_the_name_of_the_channel() {
        let usual = channel();
        let others = [
            ChannelConfig { instance_id: [9; 32], ..usual },
            ChannelConfig { payer: [9; 16], ..usual },
            ChannelConfig { payee: [9; 16], ..usual },
            ChannelConfig { signer: [9; 32], ..usual },
            ChannelConfig { asset: [9; 8], ..usual },
            ChannelConfig { scale: 9, ..usual },
            ChannelConfig { settle_delay_s: 9, ..usual },
            ChannelConfig { expires_at: 9, ..usual },
            ChannelConfig { salt: [9; 32], ..usual },
        ];
        let mut ids: Vec<[u8; 32]> = others.iter().chain([&usual]).map(ChannelConfig::id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 10);
    }

    #[test]
    fn attack_07_a_voucher_of_another_market_is_not_signed_for_this_one() {
        let SignedVoucher { voucher, signature } = voucher(1, 5);
        let elsewhere = Voucher { instance_id: instance_id(&[7; 32]), ..voucher };
        assert_eq!(elsewhere.verify(&channel().signer, &signature), Err(Unsigned::Signature));
    }

    #[test]
    fn attack_08_a_close_with_the_fields_of_a_voucher_is_another_message() {
        let close = close();
        let twin = Voucher {
            instance_id: close.instance_id,
            channel_id: close.channel_id,
            nonce: close.nonce,
            cumulative: close.final_cumulative,
            valid_until: close.valid_until,
            context_hash: [0; 32],
        };
        assert_eq!(close.message()[16..], twin.message()[16..]);
        let signer = channel().signer;
        assert_eq!(close.verify(&signer, &twin.sign(&payer())), Err(Unsigned::Signature));
        assert_eq!(twin.verify(&signer, &close.sign(&payer())), Err(Unsigned::Signature));
        assert_eq!(Voucher::read(&close.message()), Err(Unreadable::Message));
        assert_eq!(CooperativeClose::read(&twin.message()), Err(Unreadable::Message));
    }

    #[test]
    fn attack_09_signatures_and_keys_have_one_encoding_and_weak_keys_count_for_nothing() {
        let SignedVoucher { voucher, signature } = voucher(1, 5);
        let signer = channel().signer;
        assert_eq!(voucher.verify(&signer, &signature), Ok(()));
        // S + L is the same scalar in another encoding. L is l of RFC 8032 §5.1, little-endian.
        let order: [u8; 32] = read_hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
        let mut malleable = signature;
        let mut carry = 0_u16;
        for (byte, of_order) in malleable[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(of_order) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert_ne!(malleable, signature);
        assert_eq!(voucher.verify(&signer, &malleable), Err(Unsigned::Signature));
        // R in a small subgroup, and R in an encoding above the prime.
        for point in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ] {
            let point: [u8; 32] = read_hex(point).unwrap();
            let mut forged = signature;
            forged[..32].copy_from_slice(&point);
            assert_eq!(voucher.verify(&signer, &forged), Err(Unsigned::Signature));
            // Under such a key a forged signature would hold for many messages.
            let mut for_all = [0; 64];
            for_all[..32].copy_from_slice(&point);
            assert_eq!(voucher.verify(&point, &for_all), Err(Unsigned::PublicKey));
            assert_eq!(check_public_key(&point), Err(Unsigned::PublicKey));
        }
        // A point of full order in an encoding above the prime: the prime is 2^255 - 19, so y + prime fits for y below 19.
        let twice = (2..19_u8)
            .find_map(|y| {
                let mut encoded = [0; 32];
                encoded[0] = y;
                let key = VerifyingKey::from_bytes(&encoded).ok()?;
                (!key.is_weak()).then(|| {
                    let mut above = [0xff; 32];
                    above[0] = 0xed_u8.wrapping_add(y);
                    above[31] = 0x7f;
                    (encoded, above)
                })
            })
            .expect("a small y on the curve");
        assert_eq!(check_public_key(&twice.0), Ok(()));
        assert_eq!(check_public_key(&twice.1), Err(Unsigned::PublicKey));
        assert_eq!(check_public_key(&[2; 32]), Err(Unsigned::PublicKey), "no point of the curve");
    }

    #[test]
    fn attack_10_only_the_key_of_the_channel_signs_for_it() {
        let SignedVoucher { voucher, .. } = voucher(1, 5);
        let other = read_hex(MARKET).unwrap();
        assert_eq!(voucher.verify(&channel().signer, &voucher.sign(&other)), Err(Unsigned::Signature));
    }

    #[test]
    fn attack_12_a_payer_believes_nothing_but_its_own_signature() {
        let mut payer = Payer::new(channel().instance_id, channel().id(), payer(), 100);
        assert_eq!(payer.pay(10, 0, [0; 32]).unwrap(), voucher(1, 10));
        // A server says that the payer is further than it knows, up to the whole deposit.
        let mut hint = voucher(7, 100);
        hint.signature = hint.voucher.sign(&read_hex(MARKET).unwrap());
        assert_eq!(payer.adopt(&hint), Err(NotPaid::NotOurs(Unsigned::Signature)));
        let mut changed = voucher(2, 20);
        changed.voucher.cumulative = 100;
        assert_eq!(payer.adopt(&changed), Err(NotPaid::NotOurs(Unsigned::Signature)));
        let mut elsewhere = voucher(7, 100);
        elsewhere.voucher.channel_id = [1; 32];
        elsewhere.signature = elsewhere.voucher.sign(&super::tests::payer());
        assert_eq!(payer.adopt(&elsewhere), Err(NotPaid::AnotherChannel));
        assert_eq!(payer.signed(), 10);
        // What it did sign it takes up, and never goes back.
        assert_eq!(payer.adopt(&voucher(3, 30)), Ok(true));
        assert_eq!(payer.adopt(&voucher(2, 20)), Ok(false));
        assert_eq!(payer.pay(5, 0, [0; 32]).unwrap(), voucher(4, 35));
        assert_eq!(payer.pay(66, 0, [0; 32]), Err(NotPaid::AboveDeposit));
        assert_eq!(payer.pay(0, 0, [0; 32]), Err(NotPaid::Nothing));
        assert_eq!(payer.signed(), 35);
        payer.top_up(1).unwrap();
        assert_eq!(payer.pay(66, 0, [0; 32]).unwrap(), voucher(5, 101));
        assert!(!format!("{payer:?}").contains("9d61"), "a secret is not shown");
    }

    #[test]
    fn attack_13_payments_at_the_same_time_never_share_a_nonce() {
        let payer = Mutex::new(Payer::new(channel().instance_id, channel().id(), payer(), 1_000));
        let mut made = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..25).map(|_| payer.lock().unwrap().pay(3, 0, [0; 32]).unwrap()).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        made.sort_by_key(|signed| signed.voucher.nonce);
        for (place, signed) in (1..).zip(&made) {
            assert_eq!((signed.voucher.nonce, signed.voucher.cumulative), (place, 3 * place));
        }
        assert_eq!(made.len(), 100);
    }

    #[test]
    fn attack_17_an_agent_serves_only_for_what_the_market_will_honour() {
        let mut payee = Payee::new(&channel(), 300);
        let mut accept = |signed: &SignedVoucher, price, seen: Seen, now| payee.accept(signed, price, &seen, now);
        assert_eq!(accept(&voucher(1, 10), 11, SEEN, NOW), Err(NotServed::TooLittle));
        assert_eq!(accept(&voucher(1, 101), 1, SEEN, NOW), Err(NotServed::AboveDeposit));
        for standing in [Standing::Closing, Standing::Closed] {
            assert_eq!(accept(&voucher(1, 10), 10, Seen { standing, ..SEEN }, NOW), Err(NotServed::NotOpen));
        }
        let end = channel().expires_at;
        assert_eq!(accept(&voucher(1, 10), 10, SEEN, end - 300), Err(NotServed::EndsSoon));
        let mut forged = voucher(1, 10);
        forged.signature[40] ^= 1;
        assert_eq!(accept(&forged, 10, SEEN, NOW), Err(NotServed::NotSigned(Unsigned::Signature)));
        let mut hasty = voucher(1, 10);
        hasty.voucher.valid_until = NOW + 300;
        hasty.signature = hasty.voucher.sign(&payer());
        assert_eq!(accept(&hasty, 10, SEEN, NOW), Err(NotServed::VoucherEndsSoon));
        let mut elsewhere = voucher(1, 10);
        elsewhere.voucher.channel_id = [1; 32];
        assert_eq!(accept(&elsewhere, 10, SEEN, NOW), Err(NotServed::AnotherChannel));
        // None of these left a trace.
        assert_eq!(accept(&voucher(1, 10), 10, SEEN, end - 301), Ok(10));
        assert_eq!(accept(&voucher(1, 20), 10, SEEN, NOW), Err(NotServed::NotNewer));
        assert_eq!(accept(&voucher(2, 10), 0, SEEN, NOW), Err(NotServed::NotNewer));
        // What the market paid without this agent's knowledge is not paid twice.
        assert_eq!(accept(&voucher(2, 30), 10, Seen { paid: 25, ..SEEN }, NOW), Err(NotServed::TooLittle));
        assert_eq!(accept(&voucher(2, 35), 10, Seen { paid: 25, ..SEEN }, NOW), Ok(10));
        assert_eq!(payee.best(), Some(&voucher(2, 35)));
    }

    #[test]
    fn an_agent_claims_when_much_is_open_or_the_end_is_near() {
        let mut payee = Payee::new(&channel(), 300);
        assert_eq!(payee.to_claim(0, &SEEN, NOW), None);
        payee.resume(voucher(2, 20)).unwrap();
        payee.resume(voucher(1, 10)).unwrap();
        let mut forged = voucher(3, 30);
        forged.signature[0] ^= 1;
        assert_eq!(payee.resume(forged), Err(NotServed::NotSigned(Unsigned::Signature)));
        let newest = Some(voucher(2, 20));
        let claim = |threshold, seen: Seen, now| payee.to_claim(threshold, &seen, now).copied();
        assert_eq!(claim(20, SEEN, NOW), None);
        assert_eq!(claim(19, SEEN, NOW), newest);
        assert_eq!(claim(19, Seen { paid: 1, ..SEEN }, NOW), None);
        assert_eq!(claim(50, SEEN, channel().expires_at - 300), newest);
        assert_eq!(claim(50, Seen { standing: Standing::Closing, ..SEEN }, NOW), newest);
        assert_eq!(claim(50, Seen { standing: Standing::Closing, paid: 20, ..SEEN }, NOW), None);
        assert_eq!(claim(0, Seen { standing: Standing::Closed, ..SEEN }, NOW), None);
    }

    #[test]
    fn attack_20_numbers_and_bytes_have_one_spelling() {
        assert_eq!(read_number("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(read_number("0"), Ok(0));
        for bad in
            ["", "00", "01", "-1", "-0", "+1", " 1", "1 ", "1.0", "1e3", "0x1", "18446744073709551616", "٣", "1_0"]
        {
            assert_eq!(read_number(bad), Err(Unreadable::Number), "{bad}");
        }
        assert_eq!(read_hex::<2>("00ff"), Ok([0, 255]));
        for bad in ["", "00", "00f", "00FF", "00fg", "0x00", "00ff00", " 00f"] {
            assert_eq!(read_hex::<2>(bad), Err(Unreadable::Hex(2)), "{bad}");
        }
        assert_eq!(asset("CREDIT"), Ok(*b"CREDIT\0\0"));
        for bad in ["", "usd", "TOO-LONG", "NINECHARS", "É"] {
            assert_eq!(asset(bad), Err(Unreadable::Asset), "{bad}");
        }
        let json = serde_json::to_value(voucher(1, 5)).unwrap();
        assert_eq!(json["cumulative"], "5");
        assert_eq!(serde_json::from_value::<SignedVoucher>(json.clone()).unwrap(), voucher(1, 5));
        for (field, bad) in [
            ("nonce", serde_json::json!("01")),
            ("nonce", serde_json::json!(1)),
            ("cumulative", serde_json::json!("-5")),
            ("validUntil", serde_json::Value::Null),
            ("signature", serde_json::json!("00")),
            ("extra", serde_json::json!("")),
        ] {
            let mut json = json.clone();
            json[field] = bad;
            assert!(serde_json::from_value::<SignedVoucher>(json).is_err(), "{field}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            instance_id: [u8; 32], channel_id: [u8; 32], nonce: u64, cumulative: u64, valid_until: u64,
            context_hash: [u8; 32], signature in proptest::collection::vec(any::<u8>(), 64),
        ) {
            let voucher = Voucher { instance_id, channel_id, nonce, cumulative, valid_until, context_hash };
            prop_assert_eq!(Voucher::read(&voucher.message()), Ok(voucher));
            let signature: [u8; 64] = signature.try_into().unwrap();
            let signed = SignedVoucher { voucher, signature };
            let text = serde_json::to_string(&signed).unwrap();
            prop_assert_eq!(serde_json::from_str::<SignedVoucher>(&text).unwrap(), signed);
            let close = CooperativeClose { instance_id, channel_id, nonce, final_cumulative: cumulative, valid_until };
            prop_assert_eq!(CooperativeClose::read(&close.message()), Ok(close));
            let signed = SignedClose { close, signature };
            let text = serde_json::to_string(&signed).unwrap();
            prop_assert_eq!(serde_json::from_str::<SignedClose>(&text).unwrap(), signed);
        }

        #[test]
        fn no_bit_of_a_voucher_can_be_changed(bit in 0_usize..136 * 8) {
            let SignedVoucher { voucher, signature } = voucher(3, 50);
            let mut message = voucher.message();
            message[bit / 8] ^= 1 << (bit % 8);
            if let Ok(changed) = Voucher::read(&message) {
                prop_assert_eq!(changed.verify(&channel().signer, &signature), Err(Unsigned::Signature));
            }
        }

        #[test]
        fn no_bytes_and_no_text_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,140}", key: [u8; 32],
            signature in proptest::collection::vec(any::<u8>(), 64),
        ) {
            let _ = (Voucher::read(&bytes), CooperativeClose::read(&bytes), read_number(&text), asset(&text));
            let _ = (read_hex::<32>(&text), read_hex::<64>(&text), check_public_key(&key));
            let _ = (serde_json::from_str::<SignedVoucher>(&text), serde_json::from_str::<SignedClose>(&text));
            let mut tagged = VOUCHER_TAG.to_vec();
            tagged.extend(&bytes);
            let _ = Voucher::read(&tagged);
            let signature: [u8; 64] = signature.try_into().unwrap();
            prop_assert!(voucher(1, 1).voucher.verify(&key, &signature).is_err());
        }
    }
}

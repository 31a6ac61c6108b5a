//! Scripts, each of which the server runs in one step. A stream has two keys: `{<stream>}:head`, a hash
//! that identifies the stream and counts its entries, and `{<stream>}:log`, the stream itself. Each
//! idempotency key has another one, for as long as it is remembered.

/// The key of this kind. Braces: the keys of a stream belong together, where servers share keys.
fn key(stream: &str, name: &str) -> String {
    format!("{{{stream}}}:{name}")
}

/// The key of the hash that says which stream it is.
pub fn head_key(stream: &str) -> String {
    key(stream, "head")
}

/// That of the stream itself.
pub fn log_key(stream: &str) -> String {
    key(stream, "log")
}

/// The channel on which nodes talk.
pub fn aside_key(stream: &str) -> String {
    key(stream, "aside")
}

/// That of an idempotency key, in the scope of its channel.
pub fn known_key(stream: &str, channel: &str, known: &str) -> String {
    key(stream, &format!("key:{channel} {known}"))
}

/// How long the server remembers an idempotency key, in milliseconds.
pub const KEYS_MS: &str = "120000";

/// Returns the stream's identity, its oldest entry, and how many it has had. Begins the stream if there
/// is none. A changed replication id means that this server took over, or started again, and may have
/// lost entries that were answered: then the generation is raised. If two servers both believe that
/// they took over, their ids differ, and so do the identities of their streams.
///
/// `KEYS`: head, log. `ARGV`: the replication id, and a name for the stream if it begins.
pub const LOOK: &str = "
local head = redis.call('HMGET', KEYS[1], 'created', 'replid', 'generation')
if not head[1] then
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[1], 'created', ARGV[2], 'replid', ARGV[1], 'generation', 0, 'last', 0)
elseif head[2] ~= ARGV[1] then
    redis.call('HSET', KEYS[1], 'replid', ARGV[1])
    redis.call('HINCRBY', KEYS[1], 'generation', 1)
end
head = redis.call('HMGET', KEYS[1], 'created', 'replid', 'generation', 'last')
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
return {head[1] .. ' ' .. head[2], head[3], head[4], first[1] and first[1][1] or false}
";

/// Raises the generation, unless that was done already.
///
/// `KEYS`: head. `ARGV`: the generation that is over.
pub const RAISE: &str = "
if redis.call('HGET', KEYS[1], 'generation') == ARGV[1] then
    return redis.call('HINCRBY', KEYS[1], 'generation', 1)
end
return 0
";

/// Adds an entry under the next number, if this is still the stream that the node follows. If its
/// idempotency key is known, returns the number of the entry with that key instead.
///
/// `KEYS`: head, log, and that of the idempotency key, if there is one. `ARGV`: which stream, its
/// generation, how long the key is known, and the entry's fields.
pub const PUBLISH: &str = "
local head = redis.call('HMGET', KEYS[1], 'created', 'replid', 'generation', 'last')
if not head[1] or head[1] .. ' ' .. head[2] ~= ARGV[1] or head[3] ~= ARGV[2] then
    return redis.error_reply('EPOCH this is another stream')
end
local known = KEYS[3] and redis.call('GET', KEYS[3])
if known then
    return tonumber(known)
end
local seq = tonumber(head[4]) + 1
local id = string.format('%.0f', seq)
local time = redis.call('TIME')
redis.call('XADD', KEYS[2], id .. '-0', 't', time[1] .. string.format('%06d', time[2]), unpack(ARGV, 4))
redis.call('HSET', KEYS[1], 'last', id)
if KEYS[3] then
    redis.call('SET', KEYS[3], id, 'PX', ARGV[3])
end
return seq
";

-- Runs a script on the real keys so that it can be undone: see undo.py. One line, in front of the script.
(function(real, tells) --[[@MARK@]]
    local protect, told = pcall, {}
    local pcall_, saved, was, log, dead, probed = real.pcall, {}, {}, {}, false, false
    local lower, unpack_, select_, type_, tonumber_ = string.lower, unpack, select, type, tonumber
    local error_, find_, setmt, ipairs_, pairs_, format_ = error, string.find, setmetatable, ipairs, pairs, string.format
    local reads, singles, alls, have_times = {@READS@}, {@SINGLES@}, {@ALLS@}, @TIMES@
    local function is_same(key, when, value)
        local now = pcall_('PEXPIRETIME', key)
        return (now == when or (now == -1 and when == 0)) and pcall_('DUMP', key) == value
    end
    local function undo()
        dead = true
        for at = #log, 1, -1 do
            local one = log[at]
            -- A write would be a change for WATCH: unchanged keys are not written.
            if one[1] ~= 'RESTORE' or not is_same(one[2], one[3], one[4]) then pcall_(unpack_(one)) end
        end
        for key, when in pairs_(was) do
            if when < 0 then pcall_('PERSIST', key)
            elseif pcall_('PEXPIRETIME', key) ~= when then pcall_('PEXPIREAT', key, when) end
        end
        pcall_('GET', '@UNDONE@')
    end
    local function stray() if not dead then undo() end error_({err = 'ERR undone'}, 0) end
    local sizes = {string = 'STRLEN', list = 'LLEN', zset = 'ZCARD', set = 'SCARD', hash = 'HLEN', stream = 'XLEN'}
    local function ask(...)
        local reply = pcall_(...)
        if type_(reply) == 'table' and reply.err then stray() end
        return reply
    end
    local function dump(key)
        if saved[key] then return end
        local value = ask('DUMP', key)
        if not value then log[#log + 1] = {'DEL', key}
        else
            local when = ask('PEXPIRETIME', key)
            if when < 0 then when = 0 end
            log[#log + 1] = {'RESTORE', key, when, value, 'REPLACE', 'ABSTTL'}
        end
        saved[key] = true
    end
    local function is_large(key)
        if saved[key] then return false end
        local kind = ask('TYPE', key).ok
        local count = sizes[kind] and ask(sizes[kind], key) or 0
        if count <= 128 then dump(key) return false end
        return kind, count
    end
    local function keep_time(key) if not was[key] then was[key] = ask('PEXPIRETIME', key) end end
    local function whole(key, count) if count > 100000 then stray() end dump(key) end
    -- Builds commands that restore fields of a large hash; nil if a field has its own expiry.
    local function fields(key, args, step, count)
        local found, seen = {}, {}
        for at = 3, count, step do
            local field = args[at]
            if not seen[field] then
                local value = ask('HGET', key, field)
                if value and have_times and ask('HPEXPIRETIME', key, 'FIELDS', 1, field)[1] ~= -1 then return nil end
                found[#found + 1] = value and {'HSET', key, field, value} or {'HDEL', key, field}
            end
            seen[field] = true
        end
        return found
    end
    local steps = {hset = 2, hmset = 2, hsetnx = 2, hincrby = 2, hincrbyfloat = 2, hdel = 1}
    local pushes = {lpush = true, rpush = true, lpushx = true, rpushx = true}
    -- Builds the inverse of a command on a large key; nil: copy the key.
    local function inverse(name, kind, args, count, size)
        local key = args[2]
        if name == 'persist' then return {} end
        if name == 'expire' or name == 'pexpire' then return (tonumber_(args[3]) or 0) > 0 and {} or nil end
        if pushes[name] and kind == 'list' then
            local n = count - 2
            if name == 'lpush' or name == 'lpushx' then return {{'LTRIM', key, n, -1}} end
            return {{'LTRIM', key, 0, -n - 1}}
        elseif (name == 'lpop' or name == 'rpop') and kind == 'list' and count == 2 then
            local at = name == 'lpop' and 0 or -1
            return {{name == 'lpop' and 'LPUSH' or 'RPUSH', key, ask('LINDEX', key, at)}}
        elseif kind == 'set' and (name == 'sadd' or name == 'srem') then
            local found, seen = {}, {}
            for at = 3, count do
                local member = args[at]
                local has = ask('SISMEMBER', key, member) == 1
                if not seen[member] and has == (name == 'srem') then
                    found[#found + 1] = {has and 'SADD' or 'SREM', key, member}
                end
                seen[member] = true
            end
            return found
        elseif kind == 'zset' and (name == 'zrem' or (name == 'zadd' and count % 2 == 0)) then
            local found, seen, first, step = {}, {}, 3, 1
            if name == 'zadd' then
                if not tonumber_(args[3]) then return nil end
                first, step = 4, 2
            end
            for at = first, count, step do
                local member = args[at]
                if not seen[member] then
                    local score = ask('ZSCORE', key, member)
                    if score then found[#found + 1] = {'ZADD', key, score, member}
                    elseif name == 'zadd' then found[#found + 1] = {'ZREM', key, member} end
                end
                seen[member] = true
            end
            return found
        elseif kind == 'hash' and steps[name] and size > 512 and (steps[name] == 1 or count % 2 == 0) then
            return fields(args[2], args, steps[name], count)
        end
    end
    local function prepare(name, args, count)
        if not probed then
            probed = true
            local reply = pcall_('SETRANGE', args[2], 0, '')
            if type_(reply) == 'table' and reply.err and not find_(reply.err, 'WRONGTYPE', 1, true) then stray() end
        end
        if singles[name] then
            local kind, size = is_large(args[2])
            if kind then
                local found = inverse(name, kind, args, count, size)
                if not found then return whole(args[2], size) end
                keep_time(args[2])
                for _, one in ipairs_(found) do log[#log + 1] = one end
            end
        elseif (name == 'rpoplpush' or name == 'lmove') and args[2] ~= args[3] then
            local from, to = 'right', 'left'
            if name == 'lmove' then from, to = lower(args[4] or ''), lower(args[5] or '') end
            local kind, size = is_large(args[2])
            if kind == 'list' and (from == 'left' or from == 'right') then
                local value = ask('LINDEX', args[2], from == 'left' and 0 or -1)
                keep_time(args[2])
                log[#log + 1] = {from == 'left' and 'LPUSH' or 'RPUSH', args[2], value}
            elseif kind then whole(args[2], size) end
            kind, size = is_large(args[3])
            if kind == 'list' and (to == 'left' or to == 'right') then
                keep_time(args[3])
                log[#log + 1] = {to == 'left' and 'LPOP' or 'RPOP', args[3]}
            elseif kind then whole(args[3], size) end
        else
            for at = 2, alls[name] == 0 and count or alls[name] do
                local kind, size = is_large(args[at])
                if kind then whole(args[at], size) end
            end
        end
    end
    -- Redis 7.0; newer Redis and Valkey.
    local function is_refusal(reply)
        if type_(reply) ~= 'table' or not reply.err then return false end
        return find_(reply.err, 'The user executing the script', 1, true) or find_(reply.err, 'ACL failure in script', 1, true)
    end
    local function run(...)
        if dead then stray() end
        local count, name = select_('#', ...), ...
        if type_(name) ~= 'string' then stray() end
        name = lower(name)
        local second = select_(2, ...)
        if not reads[name] and not (type_(second) == 'string' and reads[name .. '|' .. lower(second)]) then
            local is_told = tells and name == 'publish' and count == 3
            if not is_told and not singles[name] and not alls[name] or count < 2 then stray() end
            local args = {...}
            for at = 1, count do
                local kind = type_(args[at])
                if kind == 'number' then args[at] = format_('%.17g', args[at])
                elseif kind ~= 'string' then stray() end
            end
            if is_told then
                told[#told + 1] = args
                return 0
            end
            prepare(name, args, count)
        end
        local reply = pcall_(...)
        if is_refusal(reply) then stray() end
        return reply
    end
    local function call(...)
        local reply = run(...)
        if type_(reply) == 'table' and reply.err then stray() end
        return reply
    end
    local mine = setmt({call = call, pcall = run}, {__index = real})
    -- Messages cannot be undone: all are published when the script has ended.
    local function finish(ok, ...)
        if dead or not ok then stray() end
        for _, one in ipairs_(told) do ask(unpack_(one)) end
        return ...
    end
    return mine, function(body, ...) return finish(protect(body, mine, ...)) end
end)

-- GUE, variant 0 (draft-ietf-intarea-gue, 3.1), and IP directly in UDP (its variant 1, and FOU), which tshark does not
-- know; all three count as gue.

local gue = Proto("gue", "Generic UDP Encapsulation")
local version = ProtoField.uint8("gue.version", "Version", base.DEC, nil, 0xc0)
local control = ProtoField.bool("gue.control", "Control", 8, nil, 0x20)
local hlen = ProtoField.uint8("gue.hlen", "Header length", base.DEC, nil, 0x1f)
local proto = ProtoField.uint8("gue.proto", "Protocol", base.DEC)
local flags = ProtoField.uint16("gue.flags", "Flags", base.HEX)
gue.fields = { version, control, hlen, proto, flags }

local by_protocol = DissectorTable.get("ip.proto")
local versions = { [4] = Dissector.get("ip"), [6] = Dissector.get("ipv6") }

function gue.dissector(buffer, pinfo, tree)
    local first = buffer(0, 1):uint()
    if first >= 0x40 then
        versions[buffer(0, 1):bitfield(0, 4)]:call(buffer, pinfo, tree)
        return
    end
    local length = 4 + 4 * (first % 32)
    local header = tree:add(gue, buffer(0, length))
    for field, range in pairs({ [version] = { 0, 1 }, [control] = { 0, 1 }, [hlen] = { 0, 1 }, [proto] = { 1, 1 },
                                [flags] = { 2, 2 } }) do
        header:add(field, buffer(range[1], range[2]))
    end
    by_protocol:try(buffer(1, 1):uint(), buffer(length):tvb(), pinfo, tree)
end

local ports = DissectorTable.get("udp.port")
ports:add(6080, gue)
ports:add(5555, gue)

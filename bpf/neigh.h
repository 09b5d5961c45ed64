/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Answering ARP and neighbour solicitations, with the MAC address of the interface that they came in by: for
 * gateways, and for what is behind tunnels that carry no Ethernet.
 */
#ifndef MPTM_NEIGH_H
#define MPTM_NEIGH_H

#include "csum.h"
#include "parse.h"
#include "stats.h"

#define ARP_REQUEST 1
#define ARP_REPLY 2

/* RFC 4861, 4.4, with one option: the target's link-layer address (4.6.1). */
struct nd_answer {
    struct ipv6hdr ip;
    struct nd_message message;
    __u8 option;
    __u8 option_length; /* in 8 bytes */
    __u8 mac[ETH_ALEN];
};
#define ND_ROUTER 0x80000000
#define ND_SOLICITED 0x40000000
#define ND_OVERRIDE 0x20000000
#define ND_TARGET_MAC 2

/* These return XDP_TX for an answer, XDP_PASS for what is no question, or a drop. */
static __always_inline int answer_arp(struct xdp_md *ctx, const struct inner *inner, const __u8 *mac)
{
    struct arp arp;
    __u8 address[4];

    if (bpf_xdp_load_bytes(ctx, inner->l3, &arp, sizeof(arp)))
        return DROP(MPTM_DROP_MALFORMED);
    if (arp.operation != bpf_htons(ARP_REQUEST))
        return XDP_PASS;
    arp.operation = bpf_htons(ARP_REPLY);
    __builtin_memcpy(address, arp.target, sizeof(address));
    __builtin_memcpy(arp.target, arp.sender, sizeof(address));
    __builtin_memcpy(arp.target_mac, arp.sender_mac, ETH_ALEN);
    __builtin_memcpy(arp.sender, address, sizeof(address));
    __builtin_memcpy(arp.sender_mac, mac, ETH_ALEN);
    return bpf_xdp_store_bytes(ctx, inner->l3, &arp, sizeof(arp)) ? DROP(MPTM_DROP_MALFORMED) : XDP_TX;
}

/* A solicitation that was damaged must not be believed (RFC 4861, 7.1.1). */
static __always_inline int is_intact(struct xdp_md *ctx, const struct inner *inner)
{
    __u32 at = inner->l3 + sizeof(struct ipv6hdr), size = inner->end - at;
    __u8 addresses[32];

    /* Its destination is not in `inner`, which has the target. */
    if (bpf_xdp_load_bytes(ctx, at - sizeof(addresses), addresses, sizeof(addresses)))
        return 0;
    __u32 sum = csum_pseudo(addresses, addresses + 16, NEXT_ICMPV6, size);

    return csum_fold(csum_range(ctx, at, size, sum)) == 0;
}

/* Who asks whether an address is free (RFC 4862, 5.4.2) has none: all nodes are told. `flags` are added to
 * what the answer says of itself. */
static __always_inline int answer_solicitation(struct xdp_md *ctx, const struct inner *inner, const __u8 *mac,
                                               __u32 length, __u32 flags)
{
    if (!is_intact(ctx, inner))
        return DROP(MPTM_DROP_MALFORMED);
    struct nd_answer answer = {};
    __u32 size = inner->l3 + sizeof(answer);
    int has_asker = !is_probe(inner);

    flags |= has_asker ? ND_SOLICITED | ND_OVERRIDE : ND_OVERRIDE;
    if (size != length && bpf_xdp_adjust_tail(ctx, (int)(size - length)))
        return DROP(MPTM_DROP_NO_ROOM);
    answer.ip.version = 6;
    answer.ip.payload_len = bpf_htons(sizeof(answer) - sizeof(answer.ip));
    answer.ip.nexthdr = NEXT_ICMPV6;
    answer.ip.hop_limit = ND_HOP_LIMIT;
    __builtin_memcpy(&answer.ip.saddr, inner->destination, 16);
    if (has_asker) {
        __builtin_memcpy(&answer.ip.daddr, inner->source, 16);
    } else {
        answer.ip.daddr.in6_u.u6_addr32[0] = bpf_htonl(0xff020000);
        answer.ip.daddr.in6_u.u6_addr32[3] = bpf_htonl(1);
    }
    answer.message.type = ND_ADVERTISEMENT;
    answer.message.flags = bpf_htonl(flags);
    __builtin_memcpy(answer.message.target, inner->destination, 16);
    answer.option = ND_TARGET_MAC;
    answer.option_length = 1;
    __builtin_memcpy(answer.mac, mac, ETH_ALEN);
    answer.message.checksum = csum_fold(csum_words(&answer.ip.saddr, 32) +
                                        csum_words(&answer.message, sizeof(answer) - sizeof(answer.ip)) +
                                        answer.ip.payload_len + bpf_htons(NEXT_ICMPV6));
    return bpf_xdp_store_bytes(ctx, inner->l3, &answer, sizeof(answer)) ? DROP(MPTM_DROP_NO_ROOM) : XDP_TX;
}

/* Makes a question its answer, with ND_ROUTER in `flags` if that is what is asked for; what is no question
 * passes to the host's stack. */
__noinline int answer_neighbour(struct xdp_md *ctx, struct inner *inner, struct mptm_interface *interface,
                                __u32 length, __u32 flags)
{
    int verdict = XDP_PASS;

    if (!inner || !interface)
        return XDP_PASS;
    if (inner->kind == KIND_ARP)
        verdict = answer_arp(ctx, inner, interface->mac);
    else if (inner->kind == KIND_SOLICITATION)
        verdict = answer_solicitation(ctx, inner, interface->mac, length, flags);
    if (verdict != XDP_TX)
        return verdict;
    /* Not before: the stack has room for them or for the answer. */
    __u8 macs[2 * ETH_ALEN];

    if (bpf_xdp_load_bytes(ctx, 0, macs, sizeof(macs)))
        return DROP(MPTM_DROP_MALFORMED);
    __builtin_memcpy(macs, macs + ETH_ALEN, ETH_ALEN);
    if (inner->kind == KIND_SOLICITATION && is_probe(inner)) {
        /* ff02::1, as RFC 2464, 7 maps it. */
        __builtin_memset(macs, 0x33, 2);
        __builtin_memset(macs + 2, 0, 3);
        macs[5] = 1;
    }
    __builtin_memcpy(macs + ETH_ALEN, interface->mac, ETH_ALEN);
    return bpf_xdp_store_bytes(ctx, 0, macs, sizeof(macs)) ? DROP(MPTM_DROP_MALFORMED) : XDP_TX;
}

#endif

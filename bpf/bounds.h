/* SPDX-License-Identifier: GPL-2.0-only */
/* Sizes that the kernel's helpers are given, which the verifier must have seen the bounds of. */
#ifndef MPTM_BOUNDS_H
#define MPTM_BOUNDS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/*
 * `size`, if it is from `least` (not 0) to `most`, and else 0. Of two comparisons a compiler makes one, of
 * the difference, in a register of its own; what the verifier of Linux 6.12, say, learns by that it does not
 * carry over to the size itself. So the difference is compared, and the size made from it again.
 */
static __always_inline __u32 within(__u32 size, __u32 least, __u32 most)
{
    __u32 more = size - least;

    barrier_var(more);
    if (more > most - least)
        return 0;
    barrier_var(more);
    return least + more;
}

#endif

/*
 * GPUDirect: whether the network's devices reach the GPUs' memory by themselves. All ranks find out when a set is
 * made, by doing it. Where it does not work, bytes go through pinned memory (channel_record.c).
 */
#include "coll/channel_parts.h"

#ifndef TUTTI_HAVE_CUDA

tutti_result tt_ports_try_direct(tutti_channel_set *s)
{
    (void)s;
    return TUTTI_OK;
}

tutti_result tt_port_settle(struct tt_port *p)
{
    (void)p;
    return TUTTI_OK;
}

#else

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "cuda/channel_memory.h"

#define PROOF UINT64_C(4096) /* bytes that every rank sends to every other */

tutti_result tt_port_settle(struct tt_port *p)
{
    return p->set->is_direct ? tt_cuda_settle(p->copier) : TUTTI_OK;
}

/* ---- what speaks against it ---- */

static const char *reason_against(const tutti_channel_set *s)
{
    const unsigned ways = tt_net_gpu_ways(s->ports[0].net);

    if (ways == 0)
        return "no device of the network reaches GPU memory: that takes an RDMA card, a UCX with "
               "CUDA, and the kernel module nvidia_peermem or dma-bufs";
    if (!tt_cuda_is_direct(s->device, s->memory, !(ways & TT_NET_GPU_PEERMEM)))
        return "the GPU's driver does not let other devices reach the memory of the channels";
    return NULL;
}

static tutti_result ask(const tutti_channel_set *s, int *is_wanted_out)
{
    enum { AUTO, ON, OFF };
    const char *why;
    int choice;

    *is_wanted_out = 0;
    TT_TRY(tt_env_choice(TT_ENV_TUTTI_NET_GPUDIRECT, &choice));
    if (choice == OFF)
        return TUTTI_OK;
    why = reason_against(s);
    if (why && choice == ON)
        return TT_FAIL(TUTTI_E_UNSUPPORTED, "TUTTI_NET_GPUDIRECT=on, but %s", why);
    *is_wanted_out = why == NULL;
    return TUTTI_OK;
}

/* Do all ranks say yes? */
static tutti_result all_say(tutti_channel_set *s, int mine, int *all_out)
{
    int32_t word = mine, *words = calloc((size_t)s->n_ranks, sizeof(*words));
    tutti_result result;

    if (!words)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to agree on channels");
    result = tt_comm_all_gather(s->comm, &word, words, sizeof(word));
    *all_out = 1;
    for (int r = 0; r < s->n_ranks; r++)
        *all_out = *all_out && words[r];
    free(words);
    return result;
}

/* ---- the proof: from GPU to GPU, something to every peer ---- */

struct proof {
    struct tt_port *p;
    unsigned char *memory; /* of the GPU: [n_ranks] to send, then [n_ranks] received */
    struct tt_net_region *region;
};

static uint64_t word_of(const tutti_channel_set *s, int from, int to, uint64_t i)
{
    return ((uint64_t)from * (uint64_t)s->n_ranks + (uint64_t)to + 1) *
               UINT64_C(0x9E3779B97F4A7C15) +
           i;
}

/* Pinned, and not in use yet. */
static uint64_t *words_for(const struct tt_port *p, int peer)
{
    return (uint64_t *)(void *)((unsigned char *)tt_port_place(p, peer) + p->set->layout.ring_out);
}

static uint64_t arrival_at(const struct tt_port *p)
{
    return p->set->layout.ring_in + p->set->layout.ring_bytes;
}

static int has_arrived(const struct tt_port *p, int peer)
{
    const unsigned char *place = (const unsigned char *)tt_port_place(p, peer);

    return __atomic_load_n((const uint64_t *)(const void *)(place + arrival_at(p)),
                           __ATOMIC_ACQUIRE) == 1;
}

static tutti_result send_words(struct proof *f, int peer)
{
    struct tt_port *p = f->p;
    const tutti_channel_set *s = p->set;
    unsigned char *out = f->memory + (uint64_t)peer * PROOF;
    const uint64_t theirs = ((uint64_t)s->n_ranks + (uint64_t)s->rank) * PROOF;
    uint64_t *words = words_for(p, peer), ticket = 0;

    for (uint64_t i = 0; i < PROOF / 8; i++)
        words[i] = word_of(s, s->rank, peer, i);
    TT_TRY(tt_cuda_copy_in(p->copier, out, words, PROOF, &ticket));
    TT_TRY(tt_port_await_copy(p, ticket));
    TT_TRY(tt_net_put(p->net, peer, out, PROOF, f->region, theirs));
    return tt_net_signal(p->net, peer, p->arena_region, tt_port_theirs(p) + arrival_at(p), 1);
}

static tutti_result await_words(const struct tt_port *p, int peer)
{
    const uint64_t until = tt_now_ns() + p->set->timeout_ns;

    while (!has_arrived(p, peer) || tt_net_sent(p->net, peer) != tt_net_posted(p->net, peer)) {
        TT_TRY(tt_net_progress(p->net));
        if (tt_now_ns() > until)
            return TT_FAIL(TUTTI_E_TIMEOUT,
                           "GPUDirect brought nothing from or to rank %d for %llu ms "
                           "(TUTTI_NET_GPUDIRECT=off does without)",
                           peer, (unsigned long long)(p->set->timeout_ns / 1000000));
    }
    return TUTTI_OK;
}

static tutti_result compare_words(const struct proof *f, int peer, int *is_good)
{
    struct tt_port *p = f->p;
    const tutti_channel_set *s = p->set;
    uint64_t *words = words_for(p, peer), ticket = 0;

    TT_TRY(tt_cuda_copy_out(p->copier, words,
                            f->memory + ((uint64_t)s->n_ranks + (uint64_t)peer) * PROOF, PROOF,
                            &ticket));
    TT_TRY(tt_port_await_copy(p, ticket));
    for (uint64_t i = 0; i < PROOF / 8; i++)
        *is_good = *is_good && words[i] == word_of(s, peer, s->rank, i);
    return TUTTI_OK;
}

static tutti_result exchange_words(struct proof *f, int *is_good)
{
    struct tt_port *p = f->p;
    const tutti_channel_set *s = p->set;

    for (int r = 0; r < s->n_ranks; r++)
        if (s->by_port[r])
            TT_TRY(send_words(f, r));
    for (int r = 0; r < s->n_ranks; r++)
        if (s->by_port[r])
            TT_TRY(await_words(p, r));
    TT_TRY(tt_cuda_settle(p->copier));
    *is_good = 1;
    for (int r = 0; r < s->n_ranks; r++)
        if (s->by_port[r])
            TT_TRY(compare_words(f, r, is_good));
    return TUTTI_OK;
}

/* Collective. */
static tutti_result prove_with(tutti_channel_set *s, struct proof *f)
{
    const struct tt_exchange x = tt_channel_exchange(s);
    tutti_result result;
    int is_good = 0;

    TT_TRY(
        tt_net_expose_gpu(f->p->net, &x, f->memory, 2 * (uint64_t)s->n_ranks * PROOF, &f->region));
    result = tt_cuda_copier_enter(f->p->copier);
    if (result == TUTTI_OK)
        result = exchange_words(f, &is_good);
    tt_cuda_copier_leave(f->p->copier);
    result = tt_channel_agree(s, result);
    tt_net_hide(f->region);
    if (result == TUTTI_OK)
        result = all_say(s, is_good, &is_good);
    if (result == TUTTI_OK && !is_good)
        result = TT_FAIL(TUTTI_E_UNSUPPORTED, "what was sent is not what came");
    return result;
}

static tutti_result prove(tutti_channel_set *s)
{
    struct proof f = {.p = &s->ports[0]};
    void *memory = NULL;
    tutti_result result = tt_cuda_words_new(s->device, 2 * (uint64_t)s->n_ranks * PROOF, &memory);

    f.memory = memory;
    result = tt_channel_agree(s, result);
    if (result == TUTTI_OK)
        result = prove_with(s, &f);
    tt_cuda_words_free(s->device, memory);
    return result;
}

/* ---- */

static void hide_memory(tutti_channel_set *s)
{
    for (uint32_t i = 0; i < s->n_proxies; i++) {
        if (s->ports[i].memory_region)
            tt_net_hide(s->ports[i].memory_region);
        s->ports[i].memory_region = NULL;
    }
}

static tutti_result expose_memory(tutti_channel_set *s)
{
    const struct tt_exchange x = tt_channel_exchange(s);

    for (uint32_t i = 0; i < s->n_proxies; i++)
        TT_TRY(tt_net_expose_gpu(s->ports[i].net, &x, s->memory, s->bytes,
                                 &s->ports[i].memory_region));
    return TUTTI_OK;
}

tutti_result tt_ports_try_direct(tutti_channel_set *s)
{
    int is_wanted;

    if (!s->device)
        return TUTTI_OK;
    TT_TRY(tt_channel_agree(s, ask(s, &is_wanted)));
    TT_TRY(all_say(s, is_wanted, &is_wanted));
    if (!is_wanted)
        return TUTTI_OK;
    s->is_direct = prove(s) == TUTTI_OK && expose_memory(s) == TUTTI_OK;
    if (s->is_direct)
        return TUTTI_OK;
    TT_LOG(
        TUTTI_LOG_WARN, s->rank, s->n_ranks,
        "channels of communicator %s: GPU memory goes through the host's, for GPUDirect was tried "
        "and did not work: %s",
        s->comm->name, tt_error_text());
    hide_memory(s);
    return TUTTI_OK;
}

#endif

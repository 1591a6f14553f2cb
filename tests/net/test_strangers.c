/* Whoever connects to the watch's port and is none of the ranks: nothing happens, and nobody is kept
 * waiting. */
/* ctest: timeout=120 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/random.h"
#include "base/sha256.h"
#include "boot/boot_wire.h"
#include "net/watch_wire.h"
#include "watches.h"

static const unsigned char other_key[32] = "the key of other ranks";

static int knock(const struct tt_boot_endpoint *where)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    T_SYS(fd);
    T_SYS(connect(fd, (const struct sockaddr *)&where->address, where->bytes));
    return fd;
}

/* Bytes until the other side has said `bytes`, or hangs up (-1), or `ms` have passed (0). */
static int hear(struct tt_watch *watch, int fd, void *out, size_t bytes, unsigned ms)
{
    const uint64_t end = tt_now_ns() + (uint64_t)ms * t_scale() * MS;
    size_t n = 0;

    while (n < bytes && tt_now_ns() < end) {
        ssize_t got = recv(fd, (char *)out + n, bytes - n, MSG_DONTWAIT);

        if (got == 0 || (got < 0 && errno != EAGAIN))
            return -1;
        n += got > 0 ? (size_t)got : 0;
        tt_watch_poll(watch);
    }
    return n == bytes ? 1 : 0;
}

static void check_nothing(const struct told *told)
{
    T_CHECK(told->n_lost + told->n_gone + told->n_abort + told->n_left + told->n_about == 0,
            "a stranger was believed: %s", told->why);
}

/* ---- a rank, to see that the tests' own frames are right ---- */

struct shaken {
    unsigned char frames[TT_WIRE_CHALLENGE_BYTES + TT_WIRE_PROOF_BYTES];
    unsigned char key_connector[32], key_acceptor[32];
};

static void derive(const unsigned char *from, struct shaken *s)
{
    tt_hmac_sha256(from, 32, "tutti watch connector", 21, s->key_connector);
    tt_hmac_sha256(from, 32, "tutti watch acceptor", 20, s->key_acceptor);
}

/* Read the challenge and make a proof of it, as `rank` to `target`. */
static void prove(struct tt_watch *watch, int fd, struct shaken *s, uint32_t rank, uint64_t target,
                  uint32_t n_ranks, unsigned char *proof_out)
{
    struct tt_wire_proof proof = {
        .version = 1, .rank = rank, .n_ranks = n_ranks, .pid = 77, .instance = target};

    T_CHECK(hear(watch, fd, s->frames, TT_WIRE_CHALLENGE_BYTES, 2000) == 1, "no challenge");
    T_OK(tt_random_bytes(proof.nonce, sizeof(proof.nonce)));
    tt_wire_pack_proof(&proof, proof_out);
    tt_wire_tag_proof(s->key_connector, s->frames, proof_out, proof.tag);
    tt_wire_pack_proof(&proof, proof_out);
    memcpy(s->frames + TT_WIRE_CHALLENGE_BYTES, proof_out, TT_WIRE_PROOF_BYTES);
}

/* What becomes of such a proof: 1 welcome, -1 hung up. */
static int try_proof(struct tt_watch *watch, const struct tt_boot_endpoint *where,
                     const unsigned char *with, uint32_t rank, uint64_t target, uint32_t n_ranks)
{
    unsigned char proof[TT_WIRE_PROOF_BYTES], welcome[TT_WIRE_WELCOME_BYTES];
    struct shaken s;
    int fd = knock(where), said;

    derive(with, &s);
    prove(watch, fd, &s, rank, target, n_ranks, proof);
    T_CHECK(send(fd, proof, sizeof(proof), MSG_NOSIGNAL) == sizeof(proof), "send");
    said = hear(watch, fd, welcome, sizeof(welcome), 2000);
    close(fd);
    return said;
}

static void test_proofs(void **state)
{
    struct told told = {0};
    struct tt_boot_endpoint where;
    struct tt_watch *watch = open_watch(1, key, &told, &where);

    (void)state;
    T_CHECK(try_proof(watch, &where, other_key, 0, 1, 4) == -1, "another key is welcome");
    T_CHECK(try_proof(watch, &where, key, 0, 2, 4) == -1, "a proof for rank 2 is welcome at 1");
    T_CHECK(try_proof(watch, &where, key, 1, 1, 4) == -1, "a second rank 1 is welcome");
    T_CHECK(try_proof(watch, &where, key, 4, 1, 4) == -1, "rank 4 of 4 is welcome");
    T_CHECK(try_proof(watch, &where, key, 0, 1, 5) == -1, "another n_ranks is welcome");
    check_nothing(&told);
    T_CHECK(told.n_refused == 5, "%llu are counted", (unsigned long long)told.n_refused);
    /* The negative control: what is right gets in, and its end is a death. */
    T_CHECK(try_proof(watch, &where, key, 0, 1, 4) == 1, "a good proof is not welcome");
    poll_for(watch, NULL, 50);
    T_CHECK(told.n_lost == 1 && told.last == 0, "its end is not noticed");
    T_CONTAINS(told.why, "process 77 died");
    T_CHECK(told.n_refused == 5, "a rank is counted among the strangers");
    tt_watch_close(watch);
}

/* A recorded proof is good for one challenge only; so are notices for one connection and one place. */
static void test_replays(void **state)
{
    struct told told = {0};
    struct tt_boot_endpoint where;
    struct tt_watch *watch = open_watch(1, key, &told, &where);
    unsigned char proof[TT_WIRE_PROOF_BYTES], other[TT_WIRE_PROOF_BYTES];
    unsigned char welcome[TT_WIRE_WELCOME_BYTES], frame[TT_NOTICE_BYTES], notice_key[32];
    const struct tt_notice abort_all = {.kind = TT_NOTICE_ABORT};
    struct shaken s, again;
    int fd = knock(&where), thief = knock(&where);

    (void)state;
    derive(key, &s);
    derive(key, &again);
    prove(watch, fd, &s, 0, 1, 4, proof);
    prove(watch, thief, &again, 0, 1, 4, other);
    T_CHECK(send(thief, proof, sizeof(proof), MSG_NOSIGNAL) == sizeof(proof), "send");
    T_CHECK(hear(watch, thief, welcome, sizeof(welcome), 2000) == -1, "a replay is welcome");
    T_CHECK(send(fd, proof, sizeof(proof), MSG_NOSIGNAL) == sizeof(proof), "send");
    T_CHECK(hear(watch, fd, welcome, sizeof(welcome), 2000) == 1, "no welcome");

    /* The right notice at the wrong place, then nothing is believed any more. */
    tt_notice_key(s.key_connector, 1, s.frames, sizeof(s.frames), notice_key);
    tt_notice_pack(notice_key, 1, &abort_all, frame);
    T_CHECK(send(fd, frame, sizeof(frame), MSG_NOSIGNAL) == sizeof(frame), "send");
    poll_for(watch, NULL, 50);
    T_CHECK(told.n_abort == 0 && told.n_lost == 1, "%d aborts, %d lost", told.n_abort, told.n_lost);
    T_CONTAINS(told.why, "cannot have sent");
    T_CHECK(told.n_refused == 2, "%llu are counted: a proof, a notice",
            (unsigned long long)told.n_refused);
    close(fd);
    close(thief);
    tt_watch_close(watch);
}

static void test_notice(void **state)
{
    struct told told = {0};
    struct tt_boot_endpoint where;
    struct tt_watch *watch = open_watch(1, key, &told, &where);
    unsigned char proof[TT_WIRE_PROOF_BYTES], welcome[TT_WIRE_WELCOME_BYTES];
    unsigned char frame[TT_NOTICE_BYTES], notice_key[32];
    const struct tt_notice left = {.kind = TT_NOTICE_LEFT};
    struct shaken s;
    int fd = knock(&where);

    (void)state;
    derive(key, &s);
    prove(watch, fd, &s, 3, 1, 4, proof);
    T_CHECK(send(fd, proof, sizeof(proof), MSG_NOSIGNAL) == sizeof(proof), "send");
    T_CHECK(hear(watch, fd, welcome, sizeof(welcome), 2000) == 1, "no welcome");
    tt_notice_key(s.key_connector, 1, s.frames, sizeof(s.frames), notice_key);
    tt_notice_pack(notice_key, 0, &left, frame);
    for (size_t i = 0; i < sizeof(frame); i++) { /* in pieces of a byte */
        T_CHECK(send(fd, frame + i, 1, MSG_NOSIGNAL) == 1, "send");
        tt_watch_poll(watch);
    }
    close(fd);
    poll_for(watch, NULL, 50);
    T_CHECK(told.n_left == 1 && told.last == 3 && told.n_lost == 0, "%d left, %d lost", told.n_left,
            told.n_lost);
    tt_watch_close(watch);
}

/* ---- crowds ---- */

/* Silent ones, talkative ones and other protocols, more than there are places; a rank gets in. */
static void test_crowd(void **state)
{
    enum { CROWD = 300 };
    struct told told = {0}, told_b = {0};
    struct tt_boot_endpoint where, where_b;
    struct tt_watch *watch = open_watch(1, key, &told, &where);
    struct tt_watch *other = open_watch(0, key, &told_b, &where_b);
    static int fds[CROWD];
    unsigned char junk[512];
    struct t_rng rng = {.state = 3};

    (void)state;
    for (int i = 0; i < CROWD; i++) {
        size_t n = t_random_below(&rng, sizeof(junk));

        fds[i] = knock(&where);
        for (size_t k = 0; k < n; k++)
            junk[k] = (unsigned char)t_random(&rng);
        if (i % 3 == 0)
            (void)send(fds[i], junk, n, MSG_NOSIGNAL);
        else if (i % 3 == 1)
            (void)send(fds[i], "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL);
        tt_watch_poll(watch);
    }
    tt_watch_find(other, 1, &where);
    tt_watch_start(other, 1);
    T_CHECK(both_ready(watch, 0, other, 1), "a rank does not get in");
    check_nothing(&told);
    check_nothing(&told_b);
    /* Who says nothing is put out after two seconds. */
    poll_for(watch, other, 2600);
    for (int i = 0; i < CROWD; i++) {
        unsigned char rest[TT_WIRE_CHALLENGE_BYTES + 1];

        T_CHECK(hear(watch, fds[i], rest, sizeof(rest), 100) == -1, "stranger %d is still there",
                i);
        close(fds[i]);
    }
    check_nothing(&told);
    T_CHECK(told.n_refused >= CROWD, "%llu of %d are counted", (unsigned long long)told.n_refused,
            CROWD);
    tt_watch_tell(other, TT_NOTICE_ABORT, 0);
    poll_for(watch, other, 50);
    T_CHECK(told.n_abort == 1 && told.last == 0, "an abort is lost");
    tt_watch_close(other);
    tt_watch_close(watch);
}

/* A process that has taken over a dead rank's port, and does not know the key. */
static void test_impostor(void **state)
{
    struct told told = {0}, told_b = {0};
    struct tt_boot_endpoint where, where_b;
    struct tt_watch *impostor = open_watch(1, other_key, &told, &where);
    struct tt_watch *watch = open_watch(0, key, &told_b, &where_b);
    const uint64_t end = tt_now_ns() + 2000 * MS * t_scale();

    (void)state;
    tt_watch_find(watch, 1, &where);
    tt_watch_start(watch, 1);
    while (tt_now_ns() < end && told_b.n_lost == 0) {
        tt_watch_poll(watch);
        tt_watch_poll(impostor);
    }
    T_CHECK(!tt_watch_is_ready(watch, 1) && !tt_watch_is_ready(impostor, 0), "it is believed");
    check_nothing(&told);
    T_CHECK(told_b.n_lost == 1, "it is tried for ever");
    T_CONTAINS(told_b.why, "does not know the ranks' key");
    tt_watch_close(watch);
    tt_watch_close(impostor);
}

/* A listener that answers with something else: the rank is lost, and says why. */
static void test_other_protocol(void **state)
{
    struct told told = {0};
    struct tt_boot_endpoint where, theirs = {.bytes = sizeof(struct sockaddr_in)};
    struct tt_watch *watch = open_watch(0, key, &told, &where);
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)&theirs.address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;

    (void)state;
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    T_SYS(bind(listener, (struct sockaddr *)in, theirs.bytes));
    T_SYS(listen(listener, 4));
    T_SYS(getsockname(listener, (struct sockaddr *)in, &theirs.bytes));
    tt_watch_find(watch, 2, &theirs);
    tt_watch_start(watch, 2);
    fd = accept(listener, NULL, NULL);
    T_SYS(fd);
    for (int i = 0; i < 10; i++)
        (void)send(fd, "220 mail.example.org ESMTP\r\n", 28, MSG_NOSIGNAL);
    poll_for(watch, NULL, 100);
    T_CHECK(told.n_lost == 1 && told.last == 2, "it is not noticed");
    T_CONTAINS(told.why, "does not know the ranks' key");
    close(fd);
    close(listener);

    /* And where nobody listens any more. */
    tt_watch_find(watch, 3, &theirs);
    tt_watch_start(watch, 3);
    poll_for(watch, NULL, 300);
    T_CHECK(told.n_gone == 1 && told.last == 3, "a closed port is not noticed");
    tt_watch_close(watch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proofs),   cmocka_unit_test(test_replays),
        cmocka_unit_test(test_notice),   cmocka_unit_test(test_crowd),
        cmocka_unit_test(test_impostor), cmocka_unit_test(test_other_protocol),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

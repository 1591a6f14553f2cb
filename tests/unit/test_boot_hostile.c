/*
 * A million hostile frames at the rendezvous while a real job of four ranks wires up: nobody of them
 * joins, nothing crashes or grows, the job starts.
 *
 * How they are counted: a frame is one handshake frame's worth of bytes (96) that an attacker has
 * given to its socket, or the attempt at one (a truncated frame, a stall). The root drops a connection
 * at its first bad frame, so the frames behind it in the same connection test that it does. The same
 * number is then put through the parser and the check of the tag one by one, without sockets.
 */
/* ctest: quick serial processors=2 timeout=120 */
#include "boot_ranks.h"
#include "base/random.h"
#include "base/sha256.h"
#include "boot/boot_wire.h"

#include <netinet/in.h>

#define N_FRAMES              1000000
#define FRAMES_PER_CONNECTION 16
#define N_ATTACKERS           2
#define N_SLOW                320 /* more than the root keeps */

static long frames_wanted = N_FRAMES;

struct hall {
    struct job *job;
    atomic_long n_frames;
    atomic_long n_connections;
    atomic_long n_refused; /* answered with "another secret" */
    atomic_int n_joined;   /* strangers that were let in */
    long rss_before_kib;
    long rss_after_kib;
};

static struct hall *hall;
static const char *attackers_secret = "wrong";

static int dial(unsigned seed)
{
    struct tt_boot_address address;
    struct tt_boot_endpoint endpoint;
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct linger now = {.l_onoff = 1};
    uint16_t port;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    /* Many source addresses and resets, so that ports do not run out. */
    from.sin_addr.s_addr = htonl(0x7f000000 | (2 + seed % 60000));
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    (void)!bind(fd, (struct sockaddr *)&from, sizeof(from));
    tt_boot_address_parse(hall->job->address, &address, &port);
    tt_boot_address_resolve(&address, port, &endpoint, 1);
    if (connect(fd, (struct sockaddr *)&endpoint.address, endpoint.bytes) == 0)
        return fd;
    close(fd);
    return -1;
}

static void make_proof(const char *secret, const unsigned char *challenge, unsigned char *out)
{
    struct tt_wire_proof proof = {.version = TT_WIRE_VERSION, .rank = 3, .n_ranks = 4};
    tutti_unique_id id;
    unsigned char key[32];

    tt_boot_id_from_address(hall->job->address, secret, &id);
    tt_boot_derive_key(&id, "tutti join", key);
    tt_wire_pack_proof(&proof, out);
    tt_wire_tag_proof(key, challenge, out, proof.tag);
    tt_wire_pack_proof(&proof, out);
}

static int read_challenge(int fd, unsigned char *out)
{
    struct timeval limit = {.tv_sec = 2};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return recv(fd, out, TT_WIRE_CHALLENGE_BYTES, MSG_WAITALL) == TT_WIRE_CHALLENGE_BYTES ? 0 : -1;
}

static void read_verdict(int fd)
{
    unsigned char in[TT_WIRE_WELCOME_BYTES];
    struct tt_wire_welcome welcome;

    if (recv(fd, in, sizeof(in), MSG_WAITALL) != sizeof(in) ||
        tt_wire_parse_welcome(in, sizeof(in), &welcome) != 0)
        return;
    if (welcome.status == TT_WIRE_BAD_SECRET)
        atomic_fetch_add(&hall->n_refused, 1);
    else
        atomic_fetch_add(&hall->n_joined, 1);
}

/* What one connection does: frames into `out`; returns its bytes. `recorded` is a proof that was good
 * on another connection. */
static size_t prepare(unsigned kind, unsigned char *out, size_t bytes,
                      const unsigned char *challenge, const unsigned char *recorded)
{
    size_t n = FRAMES_PER_CONNECTION * TT_WIRE_PROOF_BYTES;

    if (tt_random_bytes(out, bytes) != TUTTI_OK)
        return 0;
    switch (kind) {
    case 0: make_proof(attackers_secret, challenge, out); return n;
    case 1: memcpy(out, recorded, TT_WIRE_PROOF_BYTES); return n;      /* replayed */
    case 2: return n;                                                  /* noise */
    case 3: memcpy(out, challenge, TT_WIRE_CHALLENGE_BYTES); return n; /* reflected */
    case 4: memcpy(out, "GET / HTTP/1.1\r\n\r\n", 18); return n;
    case 5: make_proof(attackers_secret, challenge, out); return bytes; /* oversized */
    case 6:
        memcpy(out, recorded, 12);
        memset(out + 12, 0xff, 20);
        return n;                                                     /* huge numbers */
    default: make_proof(attackers_secret, challenge, out); return 95; /* truncated */
    }
}

static void attack_once(unsigned turn, const unsigned char *recorded)
{
    unsigned char challenge[TT_WIRE_CHALLENGE_BYTES];
    unsigned char out[4 * FRAMES_PER_CONNECTION * TT_WIRE_PROOF_BYTES];
    unsigned kind = turn % 8;
    int fd = dial(turn);

    if (fd < 0)
        return;
    if (read_challenge(fd, challenge) == 0) {
        size_t n = prepare(kind, out, sizeof(out), challenge, recorded);

        if (kind < 2) { /* alone first, to see the verdict */
            if (send(fd, out, TT_WIRE_PROOF_BYTES, MSG_NOSIGNAL) == TT_WIRE_PROOF_BYTES)
                read_verdict(fd);
            (void)!send(fd, out + TT_WIRE_PROOF_BYTES, n - TT_WIRE_PROOF_BYTES, MSG_NOSIGNAL);
        } else {
            (void)!send(fd, out, n, MSG_NOSIGNAL);
        }
        atomic_fetch_add(&hall->n_frames,
                         (long)((n + TT_WIRE_PROOF_BYTES - 1) / TT_WIRE_PROOF_BYTES));
        atomic_fetch_add(&hall->n_connections, 1);
    }
    close(fd);
}

/* Connections that stay and send a byte now and then. */
static void trickle(int slow[N_SLOW], unsigned turn, const unsigned char *recorded)
{
    unsigned i = turn % N_SLOW;

    if (slow[i] >= 0 && send(slow[i], recorded + turn / N_SLOW % 90, 1, MSG_NOSIGNAL) == 1)
        return;
    if (slow[i] >= 0)
        close(slow[i]);
    slow[i] = dial(turn ^ 0x5555);
    atomic_fetch_add(&hall->n_frames, 1);
}

static int may_go_on(void)
{
    return atomic_load(&hall->n_frames) < frames_wanted || !atomic_load(&hall->job->has_id);
}

static tutti_result be_attacker(struct job *job, int rank)
{
    unsigned char recorded[TT_WIRE_PROOF_BYTES];
    unsigned char challenge[TT_WIRE_CHALLENGE_BYTES];
    int slow[N_SLOW];

    (void)job;
    alarm(100);
    for (int i = 0; i < N_SLOW; i++)
        slow[i] = -1;
    for (int fd = -1; fd < 0; sleep_ms(1)) { /* a proof that is good, but for this challenge only */
        fd = dial((unsigned)rank);
        if (fd >= 0 && read_challenge(fd, challenge) != 0) {
            close(fd);
            fd = -1;
        }
        if (fd >= 0) {
            make_proof("s", challenge, recorded);
            close(fd);
            break;
        }
    }
    for (unsigned turn = (unsigned)rank * 1000003; may_go_on(); turn++) {
        attack_once(turn, recorded);
        if (turn % 4 == 0)
            trickle(slow, turn / 4, recorded);
        if (atomic_load(&hall->job->has_id) && atomic_load(&hall->n_frames) >= frames_wanted)
            break;
    }
    for (int i = 0; i < N_SLOW; i++) {
        if (slow[i] >= 0)
            close(slow[i]);
    }
    return TUTTI_OK;
}

static long rss_kib(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    long size = 0;
    long resident = 0;

    if (!file || fscanf(file, "%ld %ld", &size, &resident) != 2)
        resident = 0;
    if (file)
        fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* The last rank comes when nine tenths of the frames have been sent, in the middle of the rest. */
static tutti_result be_target(struct job *job, int rank)
{
    struct tt_boot *boot = NULL;
    tutti_result result;

    alarm(100);
    if (rank == 0)
        hall->rss_before_kib = rss_kib();
    while (rank == 3 && atomic_load(&hall->n_frames) < frames_wanted / 10 * 9)
        sleep_ms(5);
    if (rank == 3)
        job->start_ns = tt_now_ns();
    result = open_boot(job, rank, 4, 90000, "s", &boot);
    if (rank == 0)
        hall->rss_after_kib = rss_kib();
    for (int i = 0; result == TUTTI_OK && i < 3; i++)
        result = gather_checked(boot, rank, 4, i, 64);
    tt_boot_close(boot);
    if (rank == 3)
        atomic_store(&job->has_id, 1); /* over: the attackers may stop */
    return result;
}

static void set_up(void)
{
    char address[96];

    hall = mmap(NULL, sizeof(*hall), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(hall != MAP_FAILED);
    free_address(AF_INET, address, sizeof(address));
    hall->job = job_new(address);
}

static void test_million_frames(void **state)
{
    uint64_t start = tt_now_ns();

    (void)state;
    set_up();
    for (int rank = 0; rank < 4; rank++)
        job_add(hall->job, rank, be_target);
    for (int i = 0; i < N_ATTACKERS; i++)
        job_add(hall->job, i, be_attacker);
    job_wait(hall->job);
    print_message(
        "%ld hostile frames in %ld connections in %.1f s; %ld told of another secret; the "
        "last rank and the job were up %.3f s after it came; rank 0 grew by %ld KiB\n",
        atomic_load(&hall->n_frames), atomic_load(&hall->n_connections),
        (double)(tt_now_ns() - start) / 1e9, atomic_load(&hall->n_refused),
        hall->job->outcomes[3].seconds, hall->rss_after_kib - hall->rss_before_kib);
    for (int i = 0; i < 4 + N_ATTACKERS; i++)
        expect(hall->job, i, TUTTI_OK, NULL);
    assert_int_equal(atomic_load(&hall->n_joined), 0);
    assert_true(atomic_load(&hall->n_frames) >= frames_wanted);
    assert_true(atomic_load(&hall->n_refused) > 0);
    assert_true(hall->job->outcomes[3].seconds < 10);
#ifndef __SANITIZE_ADDRESS__
    assert_true(hall->rss_after_kib - hall->rss_before_kib < 4096);
#endif
    job_free(hall->job);
}

/* Negative control: with the right secret the very same attacker is let in, which the test sees. */
static void test_the_test_can_fail(void **state)
{
    (void)state;
    set_up();
    attackers_secret = "s";
    frames_wanted = 1000;
    atomic_store(&hall->job->has_id, 1);
    for (int rank = 0; rank < 3; rank++)
        job_add(hall->job, rank, be_target);
    sleep_ms(100);
    job_add(hall->job, 0, be_attacker);
    for (int i = 0; i < 400 && atomic_load(&hall->n_joined) == 0; i++)
        sleep_ms(10);
    for (int i = 0; i < 4; i++)
        kill(hall->job->pids[i], SIGKILL);
    job_wait(hall->job);
    assert_true(atomic_load(&hall->n_joined) > 0);
    attackers_secret = "wrong";
    job_free(hall->job);
}

/* Every single one through the parser and the tag: no bit of a good proof may be other. */
static void test_million_frames_one_by_one(void **state)
{
    unsigned char good[TT_WIRE_PROOF_BYTES];
    unsigned char frame[TT_WIRE_PROOF_BYTES];
    unsigned char challenge[TT_WIRE_CHALLENGE_BYTES];
    unsigned char tag[TT_WIRE_TAG_BYTES];
    unsigned char key[32];
    struct tt_wire_proof proof;
    tutti_unique_id id;
    uint64_t random = 88172645463325252u;
    long n_accepted = 0;

    (void)state;
    set_up();
    assert_int_equal(tt_random_bytes(challenge, sizeof(challenge)), TUTTI_OK);
    make_proof("s", challenge, good);
    tt_boot_id_from_address(hall->job->address, "s", &id);
    tt_boot_derive_key(&id, "tutti join", key);
    for (int i = -1; i < N_FRAMES; i++) { /* the first is the good one: the control */
        memcpy(frame, good, sizeof(frame));
        for (int flips = i < 0 ? 0 : 1 + i % 3; flips > 0; flips--) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            size_t bit = (size_t)(random % (8 * sizeof(frame)));

            frame[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
        if (i >= 0 && memcmp(frame, good, sizeof(frame)) == 0)
            continue; /* two flips of one bit */
        if (tt_wire_parse_proof(frame, sizeof(frame), &proof) != 0)
            continue;
        tt_wire_tag_proof(key, challenge, frame, tag);
        n_accepted += tt_equal_secret(tag, proof.tag, sizeof(tag));
    }
    assert_int_equal(n_accepted, 1);
    job_free(hall->job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_million_frames),
        cmocka_unit_test(test_the_test_can_fail),
        cmocka_unit_test(test_million_frames_one_by_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The shared board: reports, ids, barrier and exchange between ranks. Needs nothing of tutti. */
#include "support/board.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

static struct t_slot *process_slot;
static _Thread_local struct t_slot *thread_slot;

struct t_board *t_board_new(int n_ranks)
{
    struct t_board *board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (board == MAP_FAILED)
        return NULL;
    for (int r = 0; r < n_ranks; r++)
        board->slots[r].rank = r;
    return board;
}

void t_board_free(struct t_board *board)
{
    munmap(board, sizeof(*board));
}

unsigned char *t_board_shared(struct t_board *board)
{
    return board->shared;
}

void t_report_to(struct t_slot *slot, int whole_process)
{
    thread_slot = slot;
    if (whole_process)
        process_slot = slot;
}

void t_adopt(struct t_rank *t)
{
    thread_slot = &t->board->slots[t->rank];
}

static struct t_slot *my_slot(void)
{
    return thread_slot != NULL ? thread_slot : process_slot;
}

void t_at(const char *file, int line, const char *call)
{
    struct t_slot *slot = my_slot();

    if (slot == NULL)
        return;
    __atomic_store_n(&slot->file, file, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->line, line, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->call, call, __ATOMIC_RELAXED);
}

/* The first report of a rank counts; the rank's process ends here. */
static _Noreturn void end_rank(struct t_slot *slot, enum t_state state, const char *text)
{
    static atomic_flag reported = ATOMIC_FLAG_INIT;

    if (!atomic_flag_test_and_set(&reported)) {
        slot->failed_ns = t_now_ns();
        slot->held_up_ns = t_held_up_most_ns((int)getpid());
        snprintf(slot->text, sizeof(slot->text), "%s", text);
        atomic_store(&slot->state, (int)state);
        _exit(state == T_FAILED ? 1 : 0);
    }
    for (;;)
        pause();
}

void t_fail(const char *file, int line, const char *format, ...)
{
    struct t_slot *slot = my_slot();
    char text[T_TEXT_BYTES];
    int n = snprintf(text, sizeof(text), "%s:%d: ", file, line);
    va_list args;

    va_start(args, format);
    vsnprintf(text + n, sizeof(text) - (size_t)n, format, args);
    va_end(args);
    if (slot != NULL)
        end_rank(slot, T_FAILED, text);
    fail_msg("%s", text);
    abort(); /* fail_msg does not return */
}

void t_skip(const char *format, ...)
{
    struct t_slot *slot = my_slot();
    char text[T_TEXT_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (slot != NULL)
        end_rank(slot, T_SKIPPED, text);
    printf("skipped: %s\n", text);
    skip();
    abort(); /* skip does not return */
}

/* Whoever would wait for a rank that has been skipped is skipped with it. */
static void follow_skipped(const struct t_rank *t)
{
    for (int r = 0; r < t->n_ranks; r++)
        if (atomic_load(&t->board->slots[r].state) == T_SKIPPED)
            t_skip("%s", t->board->slots[r].text);
}

void t_meet(struct t_rank *t)
{
    struct t_board *board = t->board;
    const unsigned round = atomic_load(&board->met);

    if (atomic_fetch_add(&board->arrived, 1) + 1 == (unsigned)t->n_ranks) {
        atomic_store(&board->arrived, 0);
        atomic_store(&board->met, round + 1);
    }
    for (unsigned spins = 0; atomic_load(&board->met) == round; spins++)
        if (spins < 50) {
            sched_yield();
        } else {
            follow_skipped(t);
            t_sleep_us(50);
        }
}

uint64_t t_meet_ms(struct t_rank *t, struct t_time took)
{
    uint64_t most = 0;

    t->board->slots[t->rank].held_up_ns = took.held_up_ns;
    t_meet(t);
    for (int r = 0; r < t->n_ranks; r++)
        if (r != t->rank && t->board->slots[r].held_up_ns > most)
            most = t->board->slots[r].held_up_ns;
    t_meet(t);
    return t_time_left_ms(took, most);
}

void t_share_id(struct t_rank *t, int owner, uint64_t key, tutti_unique_id *id_out)
{
    struct t_id_slot *slot = &t->board->ids[key % T_ID_SLOTS];

    if (t->rank == owner) {
        T_OK(tutti_unique_id_create(id_out));
        T_OK(tutti_unique_id_to_text(id_out, slot->text, sizeof(slot->text)));
        atomic_store(&slot->key, key);
        return;
    }
    t_at(__FILE__, __LINE__, "t_share_id");
    while (atomic_load(&slot->key) != key)
        t_sleep_us(50);
    T_OK(tutti_unique_id_from_text(slot->text, id_out));
}

int t_exchange(void *context, const void *send, void *recv, size_t bytes)
{
    struct t_rank *t = context;
    struct t_board *board = t->board;
    unsigned char(*area)[T_EXCHANGE_BYTES] = board->exchange;

    if (bytes > T_EXCHANGE_BYTES)
        return -1;
    memcpy(area[t->rank], send, bytes);
    t_meet(t);
    for (int r = 0; r < t->n_ranks; r++)
        memcpy((unsigned char *)recv + (size_t)r * bytes, area[r], bytes);
    t_meet(t);
    return 0;
}

tutti_result t_comm_create(struct t_rank *t, uint64_t key, const tutti_comm_config *config,
                           tutti_comm **comm_out)
{
    tutti_comm_config full = TUTTI_COMM_CONFIG_INIT;
    tutti_unique_id id;
    tutti_result result;

    if (config != NULL && config->size != 0)
        full = *config;
    full.rank = t->rank;
    full.n_ranks = t->n_ranks;
    if (full.device == TUTTI_DEVICE_CUDA)
        full.device_index = t->job->n_devices > 0 ? t->rank % t->job->n_devices : 0;
    if (t->job->boot == T_BOOT_EXCHANGE) {
        full.exchange = t_exchange;
        full.exchange_context = t;
    } else if (t->n_ranks > 1) {
        t_share_id(t, 0, key, &id);
        full.id = &id;
    }
    t_at(__FILE__, __LINE__, "tutti_comm_create");
    result = tutti_comm_create(&full, comm_out);
    t_at(__FILE__, __LINE__, NULL);
    return result;
}

/*
 * All that `tutti bench --against gloo` knows of gloo, as a module that the program loads: tools/mpi has the
 * same for MPI. C++, since gloo has no other interface. f32 sums by gloo::allreduce with the algorithm
 * that it chooses, which is what PyTorch's backend of that name runs; and its barrier.
 */
#include "../bench_peer.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/transport/tcp/device.h>

namespace
{

std::shared_ptr<gloo::Context> context;

/* A store whose writes are all-gathers: all ranks write as often, each under a name of its own, before they
 * read. */
class ExchangeStore : public gloo::rendezvous::Store
{
  public:
    explicit ExchangeStore(const struct bench_exchange *exchange) : exchange_(exchange)
    {
    }

    void set(const std::string &key, const std::vector<char> &data) override
    {
        const std::vector<char> mine = padded(key, data);
        std::vector<char> all(MOST * (size_t)exchange_->n_ranks);

        if (exchange_->all_gather(exchange_->context, mine.data(), all.data(), MOST) != 0)
            throw std::runtime_error("the ranks cannot exchange their addresses");
        for (int r = 0; r < exchange_->n_ranks; r++) {
            const char *from = all.data() + (size_t)r * MOST;
            uint32_t n[2];

            std::memcpy(n, from, sizeof(n));
            from += sizeof(n);
            values_[std::string(from, n[0])] = std::vector<char>(from + n[0], from + n[0] + n[1]);
        }
    }

    std::vector<char> get(const std::string &key) override
    {
        return values_.at(key);
    }
    void wait(const std::vector<std::string> &) override
    {
    }
    void wait(const std::vector<std::string> &, const std::chrono::milliseconds &) override
    {
    }

  private:
    static constexpr size_t MOST = 64 << 10;

    static std::vector<char> padded(const std::string &key, const std::vector<char> &data)
    {
        const uint32_t n[2] = {(uint32_t)key.size(), (uint32_t)data.size()};
        std::vector<char> out((const char *)n, (const char *)n + sizeof(n));

        out.insert(out.end(), key.begin(), key.end());
        out.insert(out.end(), data.begin(), data.end());
        if (out.size() > MOST)
            throw std::runtime_error("addresses that are too long");
        out.resize(MOST);
        return out;
    }

    const struct bench_exchange *exchange_;
    std::map<std::string, std::vector<char>> values_;
};

const char *peer_name()
{
    return "gloo";
}

int peer_init(const struct bench_exchange *exchange)
{
    if (!exchange)
        return -1;
    try {
        gloo::transport::tcp::attr where;
        const char *interface = std::getenv("GLOO_SOCKET_IFNAME"); /* as PyTorch has it */
        ExchangeStore store(exchange);

        if (interface)
            where.iface = interface;
        auto device = gloo::transport::tcp::CreateDevice(where);
        auto mesh = std::make_shared<gloo::rendezvous::Context>(exchange->rank, exchange->n_ranks);

        mesh->connectFullMesh(store, device);
        context = mesh;
        return 0;
    } catch (const std::exception &e) {
        std::fprintf(stderr, "gloo: %s\n", e.what());
        return -1;
    }
}

void peer_finalize()
{
    context.reset();
}

int peer_rank()
{
    return context->rank;
}

int peer_n_ranks()
{
    return context->size;
}

int peer_prepare(const struct bench_call *call)
{
    const bool is_sum =
        call->id == BENCH_ALL_REDUCE && call->dtype == TUTTI_DTYPE_F32 && call->op == TUTTI_OP_SUM;

    return is_sum || call->id == BENCH_BARRIER ? 0 : -1;
}

int peer_run(const struct bench_call *call)
{
    try {
        if (call->id == BENCH_BARRIER) {
            gloo::BarrierOptions barrier(context);

            gloo::barrier(barrier);
            return 0;
        }
        gloo::AllreduceOptions options(context);

        if (!call->in_place)
            options.setInput(const_cast<float *>(static_cast<const float *>(call->send)),
                             call->count);
        options.setOutput(static_cast<float *>(call->recv), call->count);
        options.setReduceFunction(
            static_cast<void (*)(void *, const void *, const void *, size_t)>(&gloo::sum<float>));
        gloo::allreduce(options);
        return 0;
    } catch (const std::exception &e) {
        std::fprintf(stderr, "gloo: %s\n", e.what());
        return -1;
    }
}

} // namespace

extern "C" __attribute__((visibility("default"))) const struct bench_peer *tutti_bench_peer(void)
{
    static const struct bench_peer peer = {
        sizeof(peer), peer_name,    peer_init,    peer_finalize,
        peer_rank,    peer_n_ranks, peer_prepare, peer_run,
    };

    return &peer;
}

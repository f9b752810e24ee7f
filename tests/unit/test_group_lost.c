/* "A copy with holes is no member": when a disk fails under a mirrored group, this node leaves the group to the
 * other (protocol.md, "Disks"). */
#include "pair_lab.h"

#include "storaged/pool/pool_internal.h"

#define VOLUME_BYTES ((uint64_t)16 << 20)
#define LOST_BLOCKS 3u

/* The pool's part is played (--wrap): which pool has lost something, and how often each was asked. */
static _Atomic(const struct pool *) holed, watched;
static _Atomic unsigned looks;

uint64_t __wrap_pool_volume_lost_blocks(const struct pool_volume *volume);
uint64_t __wrap_pool_volume_lost_blocks(const struct pool_volume *volume)
{
    if (volume->pool == atomic_load(&watched))
        atomic_fetch_add(&looks, 1);
    return volume->pool == atomic_load(&holed) ? LOST_BLOCKS : 0;
}

static void wait_for_look(void)
{
    unsigned before = atomic_load(&looks);
    for (unsigned turn = 0; atomic_load(&looks) == before; turn++) {
        assert_true(turn < 2000);
        usleep(5000);
    }
}

static void begin(struct lab **ret)
{
    static unsigned count; /* a test that failed leaves its engines behind */
    struct lab *lab = lab_new((uint16_t)(20000 + (getpid() * 16 + count++) % 12000));
    lab_start(&lab->nodes[0]);
    lab_start(&lab->nodes[1]);
    lab_create(lab, 0, "vol", VOLUME_BYTES);
    lab_wait_role(&lab->nodes[0], "vol", AUTHORITY_PRIMARY);
    lab_wait_role(&lab->nodes[1], "vol", AUTHORITY_SECONDARY);
    *ret = lab;
}

static void lose(const struct lab_node *node)
{
    atomic_store(&watched, node->engine->pool);
    wait_for_look(); /* it was whole before */
    atomic_store(&holed, node->engine->pool);
}

static void end(struct lab *lab)
{
    atomic_store(&holed, NULL);
    lab_free(lab);
}

/* It claims the group no longer; how long W then waits (R4) is the witness's affair, and this lab's knows no claims. */
static void a_primary_lets_go(void **state)
{
    struct lab *lab;
    begin(&lab);
    lose(&lab->nodes[0]);
    lab_wait_role(&lab->nodes[0], "vol", AUTHORITY_IDLE);
    end(lab);
}

static void a_secondary_leaves(void **state)
{
    struct lab *lab;
    begin(&lab);
    lose(&lab->nodes[1]);
    lab_wait_role(&lab->nodes[0], "vol", AUTHORITY_SOLE);
    end(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_primary_lets_go),
        cmocka_unit_test(a_secondary_leaves),
    };
    log_init("lost", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

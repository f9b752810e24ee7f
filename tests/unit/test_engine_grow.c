/* A volume grows on both nodes: in which order, what initiators are told when, and what a failure leaves. The pools'
 * own growing is played (--wrap): it can be slow and it can fail. */
#include "pair_lab.h"

#define OLD_BYTES ((uint64_t)16 << 20)
#define NEW_BYTES ((uint64_t)32 << 20)

static struct {
    pthread_mutex_t lock;
    struct lab *lab;
    char order[16]; /* which node's pool was asked, in turn */
    int fail[2];    /* what its pool answers */
    bool hold;      /* it answers when told to */
    pool_done *held_done;
    void *held_userdata;
    const struct pool_volume *grown[2];
    uint64_t bytes[2];
} play = {.lock = PTHREAD_MUTEX_INITIALIZER};

uint64_t __real_pool_volume_blocks(const struct pool_volume *volume);
uint64_t __wrap_pool_volume_blocks(const struct pool_volume *volume);
void __wrap_pool_volume_grow(struct pool *pool, struct pool_volume *volume, uint64_t size_bytes, pool_done *done,
                             void *userdata);

uint64_t __wrap_pool_volume_blocks(const struct pool_volume *volume)
{
    uint64_t blocks = __real_pool_volume_blocks(volume);
    pthread_mutex_lock(&play.lock);
    for (unsigned i = 0; i < 2; i++)
        if (play.grown[i] == volume)
            blocks = play.bytes[i] / POOL_BLOCK_SIZE;
    pthread_mutex_unlock(&play.lock);
    return blocks;
}

void __wrap_pool_volume_grow(struct pool *pool, struct pool_volume *volume, uint64_t size_bytes, pool_done *done,
                             void *userdata)
{
    unsigned node = pool == play.lab->nodes[0].engine->pool ? 0 : 1;
    pthread_mutex_lock(&play.lock);
    assert_true(strlen(play.order) + 1 < sizeof play.order);
    play.order[strlen(play.order)] = node ? 'b' : 'a';
    int result = play.fail[node];
    bool hold = play.hold;
    if (result == 0) {
        play.grown[node] = volume;
        play.bytes[node] = size_bytes;
    }
    play.held_done = hold ? done : NULL;
    play.held_userdata = userdata;
    pthread_mutex_unlock(&play.lock);
    if (!hold)
        done(userdata, result);
}

struct story {
    struct lab *lab;
    struct lab_node *a, *b;
};

static struct story begin(void)
{
    static unsigned count;
    struct story story = {.lab = lab_new((uint16_t)(33000 + (getpid() * 16 + count++) % 12000))};
    memset(&play.order, 0, sizeof play - offsetof(__typeof__(play), order));
    play.lab = story.lab;
    story.a = &story.lab->nodes[0];
    story.b = &story.lab->nodes[1];
    lab_start(story.a);
    lab_start(story.b);
    lab_create(story.lab, 0, "vol", OLD_BYTES);
    lab_wait_role(story.a, "vol", AUTHORITY_PRIMARY);
    lab_wait_role(story.b, "vol", AUTHORITY_SECONDARY);
    return story;
}

static int grow(struct lab_node *node, const char *name, uint64_t size_bytes, char text[static 1024])
{
    struct lab_call waiting = {.call = {.kind = ENGINE_VOLUME_GROW, .size_bytes = size_bytes}};
    snprintf(waiting.call.name, sizeof waiting.call.name, "%s", name);
    int result = lab_call(node, &waiting);
    memcpy(text, waiting.call.err.text, 1024);
    return result;
}

static void read_sectors(struct lab_job *job)
{
    const struct lun *lun = lun_table_find(engine_luns(job->node->engine), "vol");
    *(uint64_t *)job->argument = lun ? lun->sectors : 0;
    lab_job_over(job);
}

static void expect_size(struct lab_node *node, uint64_t size_bytes)
{
    uint64_t sectors;
    lab_do(node, read_sectors, &sectors, 5);
    assert_int_equal(sectors * LUN_SECTOR_SIZE, size_bytes);
    assert_int_equal(lab_group(node, "vol").volumes[0].size_bytes, size_bytes);
}

static atomic_uint told; /* by both data threads */

static void changed(struct lun_nexus *nexus, enum lun_change change)
{
    if (change == LUN_CAPACITY_CHANGED)
        told++;
}

static void listen_job(struct lab_job *job)
{
    job->node->nexus.changed = changed;
    lab_job_over(job);
}

static void test_the_other_nodes_room_first_and_what_is_shown_last(void **state)
{
    struct story story = begin();
    char text[1024];
    uint8_t *data = aligned_alloc(4096, 4096);
    told = 0;
    assert_int_equal(lab_io_again(story.a, "vol", LUN_READ, 0, 8, data), LUN_OK);
    assert_int_equal(lab_io_again(story.b, "vol", LUN_READ, 0, 8, data), LUN_OK);
    lab_do(story.a, listen_job, NULL, 5);
    lab_do(story.b, listen_job, NULL, 5);
    assert_int_equal(grow(story.a, "vol", NEW_BYTES, text), 0);
    assert_string_equal(play.order, "ba");
    expect_size(story.a, NEW_BYTES);
    expect_size(story.b, NEW_BYTES);
    assert_int_equal(told, 2);
    /* Said again: nothing is left to be done, and nobody is told anew. */
    assert_int_equal(grow(story.a, "vol", NEW_BYTES, text), 0);
    assert_string_equal(play.order, "ba");
    assert_int_equal(told, 2);
    lab_stop(story.a);
    lab_stop(story.b);
    lab_start(story.a);
    lab_start(story.b);
    lab_wait_role(story.a, "vol", AUTHORITY_PRIMARY);
    expect_size(story.a, NEW_BYTES);
    expect_size(story.b, NEW_BYTES);
    free(data);
    lab_free(story.lab);
}

static void test_no_room_leaves_the_old_size_and_can_be_repeated(void **state)
{
    struct story story = begin();
    char text[1024];
    play.fail[1] = -ENOSPC;
    assert_int_equal(grow(story.a, "vol", NEW_BYTES, text), -ENOSPC);
    assert_non_null(strstr(text, "cannot grow on node b: its pool has not enough free space"));
    assert_string_equal(play.order, "b");
    play.fail[1] = 0;
    play.fail[0] = -ENOSPC;
    assert_int_equal(grow(story.a, "vol", NEW_BYTES, text), -ENOSPC);
    assert_non_null(strstr(text, "this node's pool has not enough free space"));
    assert_string_equal(play.order, "bba");
    expect_size(story.a, OLD_BYTES);
    expect_size(story.b, OLD_BYTES);
    play.fail[0] = 0;
    assert_int_equal(grow(story.a, "vol", NEW_BYTES, text), 0);
    assert_string_equal(play.order, "bbaa"); /* the other node has the room already */
    expect_size(story.a, NEW_BYTES);
    expect_size(story.b, NEW_BYTES);
    lab_free(story.lab);
}

static void test_what_is_refused(void **state)
{
    struct story story = begin();
    char text[1024];
    assert_int_equal(grow(story.a, "vol", OLD_BYTES / 2, text), -EINVAL);
    assert_non_null(strstr(text, "a volume only grows"));
    assert_int_equal(grow(story.a, "vol", OLD_BYTES + 512, text), -EINVAL);
    assert_int_equal(grow(story.a, "other", NEW_BYTES, text), -ENOENT);
    assert_int_equal(grow(story.b, "vol", NEW_BYTES, text), -EAGAIN);
    assert_non_null(strstr(text, "ask the node that"));
    lab_stop(story.b);
    assert_int_equal(grow(story.a, "vol", NEW_BYTES, text), -ENOTCONN);
    assert_non_null(strstr(text, "node b is not connected"));
    assert_string_equal(play.order, "");
    expect_size(story.a, OLD_BYTES);
    lab_free(story.lab);
}

static void release_job(struct lab_job *job)
{
    play.held_done(play.held_userdata, 0);
    lab_job_over(job);
}

static bool is_held(void)
{
    pthread_mutex_lock(&play.lock);
    bool held = play.held_done != NULL;
    pthread_mutex_unlock(&play.lock);
    return held;
}

static void test_a_growing_volume_is_not_deleted(void **state)
{
    struct story story = begin();
    char text[1024];
    play.hold = true;
    struct lab_call growing = {
        .call = {.kind = ENGINE_VOLUME_GROW, .size_bytes = NEW_BYTES, .name = "vol", .done = lab_call_done}};
    growing.call.userdata = &growing;
    pthread_mutex_init(&growing.lock, NULL);
    pthread_cond_init(&growing.changed, NULL);
    engine_submit(story.a->engine, &growing.call);
    while (!is_held())
        usleep(1000);
    assert_int_equal(grow(story.a, "vol", NEW_BYTES, text), -EBUSY);
    struct lab_call deleting = {.call = {.kind = ENGINE_VOLUME_DELETE, .name = "vol"}};
    assert_int_equal(lab_call(story.a, &deleting), -EBUSY);
    play.hold = false;
    lab_do(story.b, release_job, NULL, 5);
    pthread_mutex_lock(&growing.lock);
    while (!growing.over)
        pthread_cond_wait(&growing.changed, &growing.lock);
    pthread_mutex_unlock(&growing.lock);
    assert_int_equal(growing.call.result, 0);
    expect_size(story.b, NEW_BYTES);
    lab_free(story.lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_other_nodes_room_first_and_what_is_shown_last),
        cmocka_unit_test(test_no_room_leaves_the_old_size_and_can_be_repeated),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_a_growing_volume_is_not_deleted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

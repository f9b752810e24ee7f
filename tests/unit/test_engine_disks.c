/* The pool's disks as the engine tells of them: when a removal is answered, what is told when, and once. The pool's
 * part is played (--wrap): disks that drain for as long as the test wants, fail, and vanish. */
#include "pair_lab.h"

static struct {
    unsigned count;
    struct pool_disk_info disks[POOL_DISKS_MAX];
    int refuse;       /* what pool_disk_remove answers at once */
    bool begin_later; /* draining does not begin at once */
    pool_done *done;  /* of the removal under way */
    void *userdata;
    bool lost;
    void (*listener)(void *userdata, const struct pool_disk_info *disk);
    void *listener_data;
    char told[512]; /* "PATH STATE;" in the order they came */
} play;             /* on the data thread, or while it waits for nothing of it */
static pthread_mutex_t told_lock = PTHREAD_MUTEX_INITIALIZER;

unsigned __wrap_pool_disk_list(const struct pool *pool, struct pool_disk_info ret[static POOL_DISKS_MAX]);
void __wrap_pool_disk_add(struct pool *pool, struct pool_disk_prepared *prepared, pool_done *done, void *userdata);
void __wrap_pool_disk_remove(struct pool *pool, const struct id *disk, bool lost, pool_done *done, void *userdata);
void __wrap_pool_set_listener(struct pool *pool,
                              void (*disk_changed)(void *userdata, const struct pool_disk_info *disk), void *userdata);

unsigned __wrap_pool_disk_list(const struct pool *pool, struct pool_disk_info ret[static POOL_DISKS_MAX])
{
    memcpy(ret, play.disks, sizeof play.disks[0] * play.count);
    return play.count;
}

static struct pool_disk_info *disk_of(const char *path)
{
    for (unsigned i = 0; i < play.count; i++)
        if (strcmp(play.disks[i].path, path) == 0)
            return &play.disks[i];
    fail_msg("no disk %s", path);
    return NULL;
}

static void add_disk(const char *path, enum pool_disk_state state)
{
    struct pool_disk_info *disk = &play.disks[play.count++];
    *disk = (struct pool_disk_info){.id = id_random(), .state = state};
    snprintf(disk->path, sizeof disk->path, "%s", path);
}

static void drop_disk(const struct id *id)
{
    unsigned at = 0;
    while (!id_equal(&play.disks[at].id, id))
        at++;
    play.count--;
    memmove(&play.disks[at], &play.disks[at + 1], sizeof play.disks[0] * (play.count - at));
}

/* `prepared` is the path here. */
void __wrap_pool_disk_add(struct pool *pool, struct pool_disk_prepared *prepared, pool_done *done, void *userdata)
{
    if (play.refuse == 0)
        add_disk((const char *)prepared, POOL_DISK_OK);
    done(userdata, play.refuse);
}

void __wrap_pool_disk_remove(struct pool *pool, const struct id *disk, bool lost, pool_done *done, void *userdata)
{
    if (play.refuse) {
        done(userdata, play.refuse);
        return;
    }
    play.lost = lost;
    play.done = done;
    play.userdata = userdata;
    for (unsigned i = 0; i < play.count && !play.begin_later; i++)
        if (id_equal(&play.disks[i].id, disk))
            play.disks[i].state = POOL_DISK_DRAINING;
}

void __wrap_pool_set_listener(struct pool *pool,
                              void (*disk_changed)(void *userdata, const struct pool_disk_info *disk), void *userdata)
{
    play.listener = disk_changed;
    play.listener_data = userdata;
}

static void port_disk_changed(void *userdata, const struct pool_disk_info *disk, bool gone)
{
    static const char *const states[] = {"ok", "draining", "failed", "missing"};
    pthread_mutex_lock(&told_lock);
    size_t used = strlen(play.told);
    snprintf(play.told + used, sizeof play.told - used, "%s %s;", disk->path, gone ? "gone" : states[disk->state]);
    pthread_mutex_unlock(&told_lock);
}

static void take_told(char text[static 512])
{
    pthread_mutex_lock(&told_lock);
    memcpy(text, play.told, sizeof play.told);
    play.told[0] = 0;
    pthread_mutex_unlock(&told_lock);
}

static void expect_told(const char *expected)
{
    char text[512];
    take_told(text);
    assert_string_equal(text, expected);
}

/* What the engine notices at its next look, a second later at the most. */
static void wait_told(const char *expected)
{
    char text[512] = "";
    for (unsigned i = 0; i < 500 && !text[0]; i++) {
        usleep(10000);
        take_told(text);
    }
    assert_string_equal(text, expected);
}

static struct lab *begin(void)
{
    static unsigned count;
    struct lab *lab = lab_new((uint16_t)(45000 + (getpid() * 16 + count++) % 12000));
    lab->nodes[0].site.standalone = true;
    lab_start(&lab->nodes[0]);
    return lab;
}

static void begin_with(struct lab **ret)
{
    memset(&play, 0, sizeof play);
    add_disk("/one", POOL_DISK_OK);
    add_disk("/two", POOL_DISK_OK);
    *ret = begin();
}

static void port_job(struct lab_job *job)
{
    job->node->engine->options.port.disk_changed = port_disk_changed;
    lab_job_over(job);
}

static int call(struct lab *lab, struct lab_call *waiting)
{
    lab_do(&lab->nodes[0], port_job, NULL, 5);
    return lab_call(&lab->nodes[0], waiting);
}

static int remove_disk(struct lab *lab, const char *name, bool lost, char text[static 1024])
{
    struct lab_call waiting = {.call = {.kind = ENGINE_DISK_REMOVE, .lost = lost}};
    snprintf(waiting.call.disk_name, sizeof waiting.call.disk_name, "%s", name);
    int result = call(lab, &waiting);
    memcpy(text, waiting.call.err.text, 1024);
    return result;
}

static void drained_job(struct lab_job *job)
{
    drop_disk(&disk_of(job->argument)->id);
    play.done(play.userdata, 0);
    lab_job_over(job);
}

static void test_a_removal_is_answered_when_draining_has_begun(void **state)
{
    struct lab *lab;
    char text[1024], name[8] = "/one";
    begin_with(&lab);
    assert_int_equal(remove_disk(lab, name, false, text), 0);
    assert_non_null(play.done);
    assert_false(play.lost);
    expect_told("/one draining;");
    lab_do(&lab->nodes[0], drained_job, name, 5);
    expect_told("/one gone;");
    lab_free(lab);
}

static void drain_job(struct lab_job *job)
{
    disk_of(job->argument)->state = POOL_DISK_DRAINING;
    lab_job_over(job);
}

static void submitted_job(struct lab_job *job)
{
    *(bool *)job->argument = play.done != NULL;
    lab_job_over(job);
}

static void test_until_it_is_durable_that_it_drains_nobody_is_answered(void **state)
{
    struct lab *lab;
    char name[8] = "/two";
    begin_with(&lab);
    play.begin_later = true;
    struct lab_call waiting = {.call = {.kind = ENGINE_DISK_REMOVE, .disk_name = "/two", .done = lab_call_done}};
    waiting.call.userdata = &waiting;
    pthread_mutex_init(&waiting.lock, NULL);
    pthread_cond_init(&waiting.changed, NULL);
    engine_submit(lab->nodes[0].engine, &waiting.call);
    for (bool submitted = false; !submitted;)
        lab_do(&lab->nodes[0], submitted_job, &submitted, 5);
    assert_false(waiting.over);
    lab_do(&lab->nodes[0], drain_job, name, 5);
    pthread_mutex_lock(&waiting.lock);
    while (!waiting.over)
        pthread_cond_wait(&waiting.changed, &waiting.lock);
    pthread_mutex_unlock(&waiting.lock);
    assert_int_equal(waiting.call.result, 0);
    assert_true(id_equal(&waiting.call.disk, &disk_of("/two")->id));
    lab_do(&lab->nodes[0], drained_job, name, 5);
    lab_free(lab);
}

static void test_refusals_are_sentences(void **state)
{
    static const struct {
        int result;
        const char *part;
    } cases[] = {{-ENOSPC, "the other disks cannot take what it holds"},
                 {-EINVAL, "the pool's last disk"},
                 {-EBUSY, "being drained already"},
                 {-EPERM, "cannot be removed"}};
    struct lab *lab;
    char text[1024], id[ID_TEXT_SIZE];
    begin_with(&lab);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        play.refuse = cases[i].result;
        assert_int_equal(remove_disk(lab, id_format(&disk_of("/one")->id, id), false, text), cases[i].result);
        assert_non_null(strstr(text, cases[i].part));
        assert_non_null(strstr(text, "/one"));
    }
    assert_int_equal(remove_disk(lab, "/three", false, text), -ENOENT);
    disk_of("/one")->state = POOL_DISK_MISSING;
    play.refuse = -EIO;
    assert_int_equal(remove_disk(lab, "/one", false, text), -EIO);
    assert_non_null(strstr(text, "it is missing"));
    assert_non_null(strstr(text, "--lost"));
    play.refuse = 0;
    assert_null(play.done);
    lab_free(lab);
}

static void fail_job(struct lab_job *job)
{
    struct pool_disk_info *disk = disk_of(job->argument);
    disk->state = POOL_DISK_FAILED;
    play.listener(play.listener_data, disk);
    lab_job_over(job);
}

static void test_a_disk_that_fails_is_told_once_and_since_when(void **state)
{
    struct lab *lab;
    char name[8] = "/two";
    begin_with(&lab);
    struct lab_call waiting = {
        .call = {.kind = ENGINE_SNAPSHOT, .snapshot = calloc(1, sizeof(struct engine_snapshot))}};
    assert_int_equal(call(lab, &waiting), 0);
    assert_int_equal(waiting.call.snapshot->disk_since_s[1], 0);
    expect_told("");
    int64_t before_s = time(NULL);
    lab_do(&lab->nodes[0], fail_job, name, 5);
    expect_told("/two failed;");
    assert_int_equal(call(lab, &waiting), 0);
    assert_int_equal(waiting.call.snapshot->disk_count, 2);
    assert_int_equal(waiting.call.snapshot->disks[1].state, POOL_DISK_FAILED);
    assert_true(waiting.call.snapshot->disk_since_s[1] >= before_s);
    expect_told("");
    free(waiting.call.snapshot);
    lab_free(lab);
}

static void vanish_job(struct lab_job *job)
{
    drop_disk(&disk_of(job->argument)->id);
    lab_job_over(job);
}

static void test_a_drain_that_goes_on_after_a_restart_is_told_at_its_end(void **state)
{
    struct lab *lab;
    char name[8] = "/one";
    memset(&play, 0, sizeof play);
    add_disk("/one", POOL_DISK_DRAINING);
    add_disk("/two", POOL_DISK_OK);
    lab = begin();
    lab_do(&lab->nodes[0], port_job, NULL, 5);
    lab_do(&lab->nodes[0], vanish_job, name, 5);
    wait_told("/one gone;");
    lab_free(lab);
}

static void replace_job(struct lab_job *job)
{
    drop_disk(&disk_of("/one")->id);
    add_disk("/one", POOL_DISK_OK);
    lab_job_over(job);
}

static void test_the_path_of_a_disk_that_left_is_not_forgotten_when_another_is_there(void **state)
{
    struct lab *lab;
    begin_with(&lab);
    lab_do(&lab->nodes[0], port_job, NULL, 5);
    lab_do(&lab->nodes[0], replace_job, NULL, 5);
    wait_told("/one ok; gone;");
    lab_free(lab);
}

static void test_adding(void **state)
{
    struct lab *lab;
    char path[8] = "/new";
    begin_with(&lab);
    struct lab_call waiting = {
        .call = {.kind = ENGINE_DISK_ADD, .disk_name = "/new", .prepared = (struct pool_disk_prepared *)path}};
    play.refuse = -ENOSPC;
    assert_int_equal(call(lab, &waiting), -ENOSPC);
    assert_null(waiting.call.prepared);
    assert_non_null(strstr(waiting.call.err.text, "disk '/new': it cannot join the pool"));
    play.refuse = 0;
    waiting.call.prepared = (struct pool_disk_prepared *)path;
    assert_int_equal(call(lab, &waiting), 0);
    assert_true(id_equal(&waiting.call.disk, &disk_of("/new")->id));
    expect_told("/new ok;");
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_removal_is_answered_when_draining_has_begun),
        cmocka_unit_test(test_until_it_is_durable_that_it_drains_nobody_is_answered),
        cmocka_unit_test(test_refusals_are_sentences),
        cmocka_unit_test(test_a_disk_that_fails_is_told_once_and_since_when),
        cmocka_unit_test(test_a_drain_that_goes_on_after_a_restart_is_told_at_its_end),
        cmocka_unit_test(test_the_path_of_a_disk_that_left_is_not_forgotten_when_another_is_there),
        cmocka_unit_test(test_adding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Who may log in to a group's volumes: by its access list, its secrets and its owner record. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "storaged/engine/engine_private.h"

struct world {
    struct site site;
    struct engine engine;
    struct group group;
    struct lun_nexus listed, other;
    unsigned closed;
};

static void closed(struct lun_nexus *nexus, const char *reason)
{
    struct world *world = strcmp(nexus->initiator, "iqn.listed") == 0 ? list_entry(nexus, struct world, listed)
                                                                      : list_entry(nexus, struct world, other);
    assert_non_null(reason);
    world->closed++;
}

static int setup(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    struct group_volume *volume = &world->group.volumes[0];
    world->engine.site = &world->site;
    world->group.engine = &world->engine;
    snprintf(world->group.name, sizeof(world->group.name), "v");
    volume->group = &world->group;
    volume->used = volume->exported = true;
    list_init(&volume->lun.nexuses);
    strcpy(world->listed.initiator, "iqn.listed");
    strcpy(world->other.initiator, "iqn.other");
    world->listed.close = world->other.close = closed;
    lun_nexus_open(&world->listed, &volume->lun);
    lun_nexus_open(&world->other, &volume->lun);
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    metadata_clear(&world->group.metadata);
    free(world);
    return 0;
}

static void set(struct world *world, const char *key, const char *value)
{
    assert_int_equal(metadata_set(&world->group.metadata, key, value), 0);
    world->closed = 0;
    admission_update(&world->group);
}

static int ask(struct world *world, const char *initiator, struct lun_admission *ret)
{
    memset(ret, 0, sizeof(*ret));
    int r = admission_check(&world->group.volumes[0].lun, initiator, ret);
    assert_true(r == 0 || ret->reason != NULL);
    return r;
}

static void the_list_decides(void **state)
{
    struct world *world = *state;
    struct lun_admission admission;
    assert_int_equal(ask(world, "iqn.anybody", &admission), 0);
    assert_false(admission.chap);
    set(world, "acl", "{\"initiators\":[\"iqn.listed\",\"iqn.third\"]}");
    assert_int_equal(world->closed, 1); /* iqn.other */
    assert_int_equal(ask(world, "iqn.listed", &admission), 0);
    assert_int_equal(ask(world, "IQN.Third", &admission), 0); /* names do not differ by case */
    assert_int_equal(ask(world, "iqn.other", &admission), -EACCES);
    assert_int_equal(ask(world, "iqn.liste", &admission), -EACCES);
    set(world, "acl", NULL);
    assert_int_equal(world->closed, 0);
    assert_int_equal(ask(world, "iqn.other", &admission), 0);
}

static void an_empty_or_broken_list_admits_nobody(void **state)
{
    static const char *const lists[] = {"{\"initiators\":[]}", "{}", "no json", "{\"initiators\":\"iqn.listed\"}",
                                        "{\"initiators\":[\"iqn.listed\",7]}", "{\"initiators\":[\"\"]}"};
    struct world *world = *state;
    struct lun_admission admission;
    for (unsigned i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        set(world, "acl", lists[i]);
        assert_int_equal(world->closed, 2);
        assert_int_equal(ask(world, "iqn.listed", &admission), -EACCES);
        assert_int_equal(ask(world, "", &admission), -EACCES);
    }
}

static void a_list_has_an_end(void **state)
{
    struct world *world = *state;
    struct lun_admission admission;
    char text[GROUP_INITIATORS_MAX * 16 + 64];
    for (unsigned count = GROUP_INITIATORS_MAX; count <= GROUP_INITIATORS_MAX + 1; count++) {
        size_t used = (size_t)snprintf(text, sizeof(text), "{\"initiators\":[");
        for (unsigned i = 0; i < count; i++)
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%s\"iqn.%u\"", i ? "," : "", i);
        snprintf(text + used, sizeof(text) - used, "]}");
        set(world, "acl", text);
        assert_int_equal(ask(world, "iqn.63", &admission), count == GROUP_INITIATORS_MAX ? 0 : -EACCES);
    }
}

static void secrets_reach_the_login(void **state)
{
    struct world *world = *state;
    struct lun_admission admission;
    set(world, "chap", "{\"user\":\"u\",\"secret\":\"a secret of ours\"}");
    assert_int_equal(ask(world, "iqn.listed", &admission), 0);
    assert_true(admission.chap && !admission.mutual);
    assert_string_equal(admission.user, "u");
    assert_string_equal(admission.secret, "a secret of ours");
    set(world, "chap", "{\"user\":\"u\",\"secret\":\"a secret of ours\",\"mutual_user\":\"t\",\"mutual_secret\":\"another secret\"}");
    assert_int_equal(ask(world, "iqn.listed", &admission), 0);
    assert_true(admission.chap && admission.mutual);
    assert_string_equal(admission.mutual_user, "t");
    assert_string_equal(admission.mutual_secret, "another secret");
    set(world, "chap", NULL);
    assert_int_equal(ask(world, "iqn.listed", &admission), 0);
    assert_false(admission.chap || admission.mutual);
    assert_string_equal(world->group.chap_secret, "");
    assert_string_equal(world->group.mutual_secret, "");
}

/* What was meant to keep somebody out must not open the door because it cannot be read. */
static void broken_secrets_admit_nobody(void **state)
{
    static const char *const entries[] = {"no json", "{}", "{\"user\":\"u\"}", "{\"user\":\"\",\"secret\":\"a secret of ours\"}",
                                          "{\"user\":\"u\",\"secret\":\"same both ways\",\"mutual_user\":\"t\",\"mutual_secret\":\"same both ways\"}"};
    struct world *world = *state;
    struct lun_admission admission;
    for (unsigned i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        set(world, "chap", entries[i]);
        assert_int_equal(ask(world, "iqn.listed", &admission), -EACCES);
        assert_string_equal(admission.secret, "");
    }
}

/* R11: of a guest's volumes the owner record decides, whatever a list says. */
static void the_owner_record_comes_first(void **state)
{
    struct world *world = *state;
    struct lun_admission admission;
    char owner[160], uuid[ID_TEXT_SIZE];
    world->site.nodes[0].id = id_random();
    strcpy(world->site.nodes[0].name, "a");
    id_format(&world->site.nodes[0].id, uuid);
    snprintf(owner, sizeof(owner), "{\"state\":\"running\",\"node\":\"%s\",\"incarnation\":3}", uuid);
    set(world, "acl", "{\"initiators\":[\"iqn.listed\"]}");
    set(world, "guest", "{\"name\":\"g\"}");
    set(world, "owner", owner);
    assert_int_equal(world->closed, 2);
    assert_int_equal(ask(world, "iqn.listed", &admission), -EACCES);
    assert_int_equal(ask(world, LUN_IQN_PREFIX "guest.g.3.a", &admission), -EAGAIN); /* the others are not drained */
    lun_nexus_drop(&world->listed);
    lun_nexus_close(&world->listed);
    lun_nexus_drop(&world->other);
    lun_nexus_close(&world->other);
    assert_int_equal(ask(world, LUN_IQN_PREFIX "guest.g.3.a", &admission), 0);
    assert_int_equal(ask(world, LUN_IQN_PREFIX "guest.g.2.a", &admission), -EACCES);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_list_decides),        TEST(an_empty_or_broken_list_admits_nobody), TEST(a_list_has_an_end),
        TEST(secrets_reach_the_login), TEST(broken_secrets_admit_nobody),           TEST(the_owner_record_comes_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

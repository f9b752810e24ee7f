/* The control socket: server, lasting client and single call against each other and against misbehaviour. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/control.h"

#define PARKED_MAX 128

static char folder[] = "/tmp/hci-test-control.XXXXXX";
static char path[sizeof(folder) + 16];

/* A server whose method "park" leaves requests unanswered, and what a client heard. */
struct world {
    sd_event *event;
    struct control_server *server;
    struct control_client *client;
    struct control_request *parked[PARKED_MAX];
    unsigned parked_count;
    unsigned connected_count, disconnected_count, event_count, answer_count;
    char last_event[32], last_code[32];
    json_t *last_result;
    bool free_client_in_answer, call_again_in_answer;
    unsigned closed_count;
};

static void on_echo(struct control_request *request, json_t *params, void *userdata)
{
    control_reply(request, json_incref(params));
}

static void on_deny(struct control_request *request, json_t *params, void *userdata)
{
    control_fail(request, "exists", "volume '%s': exists already; choose another name", "db1");
}

static void on_park(struct control_request *request, json_t *params, void *userdata)
{
    struct world *world = userdata;
    assert_true(world->parked_count < PARKED_MAX);
    world->parked[world->parked_count++] = request;
}

static void on_huge(struct control_request *request, json_t *params, void *userdata)
{
    cleanup_free char *text = malloc(CONTROL_LINE_MAX + 1);
    memset(text, 'x', CONTROL_LINE_MAX);
    text[CONTROL_LINE_MAX] = '\0';
    control_reply(request, json_string(text));
}

static void on_subscribe(struct control_request *request, json_t *params, void *userdata)
{
    control_send_event(request, "welcome", NULL);
    control_reply(request, NULL);
}

static void on_closed(void *userdata) { ((struct world *)userdata)->closed_count++; }

static void on_claim(struct control_request *request, json_t *params, void *userdata)
{
    control_on_close(request, on_closed, userdata);
    control_reply(request, NULL);
}

static const struct control_method methods[] = {
    {"claim", on_claim}, {"echo", on_echo},
    {"deny", on_deny}, {"park", on_park}, {"huge", on_huge}, {"subscribe", on_subscribe},
    {0},
};

static void client_connected(void *userdata) { ((struct world *)userdata)->connected_count++; }
static void client_disconnected(void *userdata) { ((struct world *)userdata)->disconnected_count++; }

static void client_event(const char *name, json_t *data, void *userdata)
{
    struct world *world = userdata;
    assert_true(json_is_object(data));
    world->event_count++;
    snprintf(world->last_event, sizeof(world->last_event), "%s", name);
}

static const struct control_client_callbacks callbacks = {client_connected, client_disconnected, client_event};

static void client_answer(json_t *result, json_t *error, void *userdata)
{
    struct world *world = userdata;

    world->answer_count++;
    assert_true((result == NULL) != (error == NULL));
    json_decref(world->last_result);
    world->last_result = json_incref(result);
    snprintf(world->last_code, sizeof(world->last_code), "%s",
             error == NULL ? "" : json_string_value(json_object_get(error, "code")));
    if (world->free_client_in_answer) {
        control_client_free(world->client);
        world->client = NULL;
    } else if (world->call_again_in_answer) {
        control_client_call(world->client, "echo", NULL, client_answer, world);
    }
}

#define RUN_UNTIL(world, condition)                                                                                    \
    do {                                                                                                               \
        uint64_t deadline_ms = clock_boottime_ms() + 5000;                                                             \
        while (!(condition)) {                                                                                         \
            assert_true(clock_boottime_ms() < deadline_ms);                                                            \
            assert_true(sd_event_run((world)->event, 10000) >= 0);                                                     \
        }                                                                                                              \
    } while (0)

static void run_for(struct world *world, uint64_t ms)
{
    uint64_t deadline_ms = clock_boottime_ms() + ms;
    while (clock_boottime_ms() < deadline_ms)
        assert_true(sd_event_run(world->event, 5000) >= 0);
}

static void start_server(struct world *world)
{
    struct err err;
    assert_int_equal(control_server_new(world->event, path, methods, world, &world->server, &err), 0);
}

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    *state = world;
    if (world == NULL || sd_event_new(&world->event) < 0)
        return -1;
    start_server(world);
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    control_client_free(world->client);
    control_server_free(world->server);
    json_decref(world->last_result);
    sd_event_unref(world->event);
    free(world);
    return 0;
}

static void start_client(struct world *world)
{
    assert_int_equal(control_client_new(world->event, path, &callbacks, world, &world->client), 0);
    RUN_UNTIL(world, control_client_is_connected(world->client) && world->event_count == 1);
}

static int raw_connect(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Sends text and runs the loop until `lines` lines or the end came back. Returns whether the end came. */
static bool raw_ask(struct world *world, int fd, const char *text, size_t size, unsigned lines, char *ret,
                    size_t ret_size)
{
    uint64_t deadline_ms = clock_boottime_ms() + 5000;
    size_t sent = 0, got = 0;

    memset(ret, 0, ret_size);
    while (clock_boottime_ms() < deadline_ms) {
        ssize_t moved = sent == size ? 0 : send(fd, text + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += moved > 0 ? (size_t)moved : 0;
        sd_event_run(world->event, 1000);
        moved = recv(fd, ret + got, ret_size - 1 - got, MSG_DONTWAIT);
        if (moved == 0 || (moved < 0 && errno == ECONNRESET))
            return true;
        got += moved > 0 ? (size_t)moved : 0;
        unsigned seen = 0;
        for (size_t index = 0; index < got; index++)
            seen += ret[index] == '\n';
        if (sent == size && seen >= lines)
            return false;
    }
    fail_msg("no answer within 5 s");
    return false;
}

static void test_socket_mode(void **state)
{
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
}

static void test_old_socket_is_replaced(void **state)
{
    struct world *world = *state;
    struct control_server *second = NULL;
    struct err err;

    assert_int_equal(control_server_new(world->event, path, methods, world, &second, &err), 0);
    control_server_free(world->server);
    world->server = second;
    assert_int_equal(control_server_new(world->event, "/nowhere/at/all.sock", methods, world, &second, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere/at/all.sock"));
}

static void test_client_calls(void **state)
{
    struct world *world = *state;

    start_client(world);
    assert_int_equal(world->connected_count, 1);
    assert_string_equal(world->last_event, "welcome");
    control_client_call(world->client, "echo", json_pack("{s:i}", "value", 7), client_answer, world);
    assert_int_equal(world->answer_count, 0); /* never from inside the call */
    RUN_UNTIL(world, world->answer_count == 1);
    assert_int_equal(json_integer_value(json_object_get(world->last_result, "value")), 7);
    control_client_call(world->client, "deny", NULL, client_answer, world);
    RUN_UNTIL(world, world->answer_count == 2);
    assert_string_equal(world->last_code, "exists");
    control_client_call(world->client, "no-such", NULL, client_answer, world);
    RUN_UNTIL(world, world->answer_count == 3);
    assert_string_equal(world->last_code, "unknown_method");
    control_client_call(world->client, "huge", NULL, client_answer, world);
    RUN_UNTIL(world, world->answer_count == 4);
    assert_string_equal(world->last_code, "too_large");
}

static void test_client_question_too_large(void **state)
{
    struct world *world = *state;
    cleanup_free char *text = malloc(CONTROL_LINE_MAX + 1);

    start_client(world);
    memset(text, 'y', CONTROL_LINE_MAX);
    text[CONTROL_LINE_MAX] = '\0';
    control_client_call(world->client, "echo", json_pack("{s:s}", "text", text), client_answer, world);
    RUN_UNTIL(world, world->answer_count == 1);
    assert_string_equal(world->last_code, "too_large");
    text[CONTROL_LINE_MAX - 1000] = '\0'; /* just fits, both ways */
    control_client_call(world->client, "echo", json_pack("{s:s}", "text", text), client_answer, world);
    RUN_UNTIL(world, world->answer_count == 2);
    assert_string_equal(world->last_code, "");
    assert_true(control_client_is_connected(world->client));
}

static void test_events(void **state)
{
    struct world *world = *state;
    int unsubscribed = raw_connect();
    char nothing[16];

    start_client(world);
    control_publish(world->server, "group", json_pack("{s:s}", "name", "db1"));
    control_publish(world->server, "link", NULL);
    RUN_UNTIL(world, world->event_count == 3);
    assert_string_equal(world->last_event, "link");
    assert_int_equal(recv(unsubscribed, nothing, sizeof(nothing), MSG_DONTWAIT), -1);
    close(unsubscribed);
}

static void test_client_not_connected(void **state)
{
    struct world *world = *state;

    control_server_free(world->server);
    world->server = NULL;
    assert_int_equal(control_client_new(world->event, path, &callbacks, world, &world->client), 0);
    control_client_call(world->client, "echo", NULL, client_answer, world);
    assert_int_equal(world->answer_count, 0);
    RUN_UNTIL(world, world->answer_count == 1);
    assert_string_equal(world->last_code, "disconnected");
    world->call_again_in_answer = true; /* an owner that insists must not stop the loop */
    control_client_call(world->client, "echo", NULL, client_answer, world);
    RUN_UNTIL(world, world->answer_count > 10);
    start_server(world);
    RUN_UNTIL(world, control_client_is_connected(world->client));
    world->call_again_in_answer = false;
    assert_int_equal(world->connected_count, 1);
    assert_int_equal(world->disconnected_count, 0);
}

static void test_client_reconnects(void **state)
{
    struct world *world = *state;

    start_client(world);
    for (unsigned index = 0; index < CONTROL_PENDING_MAX; index++)
        control_client_call(world->client, "park", NULL, client_answer, world);
    RUN_UNTIL(world, world->parked_count == CONTROL_PENDING_MAX);
    control_server_free(world->server);
    world->server = NULL;
    for (unsigned index = 0; index < CONTROL_PENDING_MAX; index++)
        control_reply(world->parked[index], NULL); /* orphans of a server that is gone: dropped */
    RUN_UNTIL(world, world->disconnected_count == 1);
    assert_int_equal(world->answer_count, CONTROL_PENDING_MAX); /* failed before the owner hears of the end */
    assert_string_equal(world->last_code, "disconnected");
    assert_false(control_client_is_connected(world->client));
    start_server(world);
    RUN_UNTIL(world, world->connected_count == 2 && world->event_count == 2); /* subscribed again */
    control_client_call(world->client, "echo", NULL, client_answer, world);
    RUN_UNTIL(world, world->answer_count == CONTROL_PENDING_MAX + 1);
    assert_string_equal(world->last_code, ""); /* the failed calls hold no room */
}

static void test_client_freed_inside_answer(void **state)
{
    struct world *world = *state;

    start_client(world);
    world->free_client_in_answer = true;
    control_client_call(world->client, "echo", NULL, client_answer, world);
    control_client_call(world->client, "echo", NULL, client_answer, world); /* dropped */
    RUN_UNTIL(world, world->answer_count == 1);
    run_for(world, 30);
    assert_int_equal(world->answer_count, 1);
}

static void test_orphaned_request(void **state)
{
    struct world *world = *state;
    int fd = raw_connect();
    char answer[256];

    raw_ask(world, fd, "{\"id\":1,\"method\":\"park\"}\n{\"id\":2,\"method\":\"park\"}\n", 50, 0, answer,
            sizeof(answer));
    RUN_UNTIL(world, world->parked_count == 2);
    close(fd);
    run_for(world, 20);
    control_send_event(world->parked[0], "late", NULL);
    control_reply(world->parked[0], NULL);
    control_fail(world->parked[1], "late", "nobody hears this");
}

static void test_on_close(void **state)
{
    static const char text[] = "{\"id\":1,\"method\":\"claim\"}\n{\"id\":2,\"method\":\"claim\"}\n";
    struct world *world = *state;
    int claiming = raw_connect(), other = raw_connect();
    char answer[256];

    assert_false(raw_ask(world, claiming, text, sizeof(text) - 1, 2, answer, sizeof(answer)));
    close(other);
    run_for(world, 20);
    assert_int_equal(world->closed_count, 0);
    close(claiming);
    RUN_UNTIL(world, world->closed_count > 0);
    run_for(world, 20);
    assert_int_equal(world->closed_count, 1); /* the later one replaced the earlier */
}

static void test_too_many_pending(void **state)
{
    struct world *world = *state;
    char asked[CONTROL_PENDING_MAX * 40 + 40], answer[512];
    size_t size = 0;
    int fd = raw_connect();

    for (unsigned index = 0; index <= CONTROL_PENDING_MAX; index++)
        size += (size_t)sprintf(asked + size, "{\"id\":%u,\"method\":\"park\"}\n", index);
    assert_false(raw_ask(world, fd, asked, size, 1, answer, sizeof(answer)));
    assert_non_null(strstr(answer, "\"id\":64,"));
    assert_non_null(strstr(answer, "\"busy\""));
    assert_int_equal(world->parked_count, CONTROL_PENDING_MAX);
    control_reply(world->parked[0], NULL); /* room for one more */
    assert_false(raw_ask(world, fd, "{\"id\":99,\"method\":\"echo\"}\n", 26, 2, answer, sizeof(answer)));
    assert_non_null(strstr(answer, "{\"id\":0,\"result\":{}}\n"));
    assert_non_null(strstr(answer, "{\"id\":99,\"result\":{}}\n"));
    for (unsigned index = 1; index < CONTROL_PENDING_MAX; index++)
        control_reply(world->parked[index], NULL);
    close(fd);
}

static void test_client_too_many_pending(void **state)
{
    struct world *world = *state;

    start_client(world);
    for (unsigned index = 0; index <= CONTROL_PENDING_MAX; index++)
        control_client_call(world->client, "park", NULL, client_answer, world);
    RUN_UNTIL(world, world->answer_count == 1 && world->parked_count == CONTROL_PENDING_MAX);
    assert_string_equal(world->last_code, "busy");
    for (unsigned index = 0; index < CONTROL_PENDING_MAX; index++)
        control_reply(world->parked[index], NULL);
    RUN_UNTIL(world, world->answer_count == 1 + CONTROL_PENDING_MAX);
}

static void test_oversize_line(void **state)
{
    struct world *world = *state;
    size_t size = CONTROL_LINE_MAX + 100;
    cleanup_free char *line = malloc(size);
    char answer[512];
    int fd = raw_connect();

    memset(line, 'z', size); /* and no newline ever */
    assert_true(raw_ask(world, fd, line, size, 9, answer, sizeof(answer)));
    assert_non_null(strstr(answer, "too_large"));
    close(fd);
}

static void test_nonsense_lines(void **state)
{
    static const char text[] = "this is not JSON\n[1,2]\n\n{\"id\":\"text\",\"method\":\"echo\"}\n{\"id\":5}\n"
                               "{\"id\":6,\"method\":\"echo\",\"params\":[]}\n{\"id\":7,\"id\":8,\"method\":\"echo\"}\n"
                               "{\"id\":9,\"method\":\"echo\",\"params\":{\"a\":1}}\n";
    struct world *world = *state;
    char answer[4096];
    int fd = raw_connect();

    assert_false(raw_ask(world, fd, text, sizeof(text) - 1, 8, answer, sizeof(answer)));
    assert_non_null(strstr(answer, "{\"id\":null,\"error\":{\"code\":\"invalid\""));
    assert_non_null(strstr(answer, "{\"id\":5,\"error\":{\"code\":\"invalid\""));
    assert_non_null(strstr(answer, "{\"id\":6,\"error\":{\"code\":\"invalid\""));
    assert_non_null(strstr(answer, "{\"id\":9,\"result\":{\"a\":1}}\n"));
    close(fd);
}

static void test_line_in_pieces(void **state)
{
    static const char text[] = "{\"id\":1,\"method\":\"echo\"}\n";
    struct world *world = *state;
    char answer[128];
    int fd = raw_connect();

    for (size_t index = 0; index < sizeof(text) - 2; index++)
        raw_ask(world, fd, text + index, 1, 0, answer, sizeof(answer));
    assert_false(raw_ask(world, fd, "\n", 1, 1, answer, sizeof(answer)));
    assert_string_equal(answer, "{\"id\":1,\"result\":{}}\n");
    close(fd);
}

static void test_too_many_connections(void **state)
{
    struct world *world = *state;
    int fds[CONTROL_CONNECTIONS_MAX + 1];
    char answer[128];

    for (unsigned index = 0; index <= CONTROL_CONNECTIONS_MAX; index++) {
        fds[index] = raw_connect();
        run_for(world, 1);
    }
    run_for(world, 20);
    assert_int_equal(recv(fds[CONTROL_CONNECTIONS_MAX], answer, sizeof(answer), 0), 0);
    assert_false(raw_ask(world, fds[0], "{\"id\":1,\"method\":\"echo\"}\n", 25, 1, answer, sizeof(answer)));
    for (unsigned index = 0; index <= CONTROL_CONNECTIONS_MAX; index++)
        close(fds[index]);
    run_for(world, 20);
    start_client(world); /* room again */
}

static void test_subscriber_that_does_not_read(void **state)
{
    struct world *world = *state;
    cleanup_free char *text = malloc(100001);
    char answer[256];
    int fd = raw_connect();

    memset(text, 'e', 100000);
    text[100000] = '\0';
    raw_ask(world, fd, "{\"id\":1,\"method\":\"subscribe\"}\n", 30, 2, answer, sizeof(answer));
    for (unsigned round = 0; round < 40; round++)
        control_publish(world->server, "flood", json_pack("{s:s}", "text", text));
    run_for(world, 20);
    uint64_t total = 0;
    cleanup_free char *sink = malloc(65536);
    ssize_t got;
    while ((got = recv(fd, sink, 65536, 0)) > 0)
        total += (uint64_t)got;
    assert_int_equal(got, 0); /* closed, and no more than its limit was kept */
    assert_true(total < 40 * 100000);
    close(fd);
}

/* The single call blocks, so the server runs in a thread of its own. */
struct served {
    struct world *world;
    pthread_t thread;
    bool stop;
};

static void *serve(void *userdata)
{
    struct served *served = userdata;
    while (!__atomic_load_n(&served->stop, __ATOMIC_ACQUIRE))
        sd_event_run(served->world->event, 2000);
    return NULL;
}

static void test_single_call(void **state)
{
    struct world *world = *state;
    struct served served = {.world = world};
    struct err err;
    json_t *result = NULL;

    assert_int_equal(pthread_create(&served.thread, NULL, serve, &served), 0);
    assert_int_equal(control_call(path, "hci-storaged", "echo", json_pack("{s:i}", "a", 1), 5000, &result, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(result, "a")), 1);
    json_decref(result);
    result = NULL;
    assert_int_equal(control_call(path, "hci-storaged", "deny", NULL, 5000, &result, &err), -EREMOTEIO);
    assert_string_equal(err.code, "exists");
    assert_string_equal(err.text, "volume 'db1': exists already; choose another name");
    assert_int_equal(control_call(path, "hci-storaged", "park", NULL, 100, &result, &err), -ETIMEDOUT);
    assert_string_equal(err.code, "timeout");
    assert_null(result);
    __atomic_store_n(&served.stop, true, __ATOMIC_RELEASE);
    pthread_join(served.thread, NULL);
    control_reply(world->parked[0], NULL);
}

static void test_single_call_without_daemon(void **state)
{
    struct err err;
    json_t *result = NULL;
    struct world *world = *state;

    control_server_free(world->server);
    world->server = NULL;
    assert_int_equal(control_call(path, "hci-storaged", "echo", NULL, 1000, &result, &err), -ECONNREFUSED);
    assert_non_null(strstr(err.text, "hci-storaged is not running on this node; "));
}

static int make_folder(void **state)
{
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/test.sock", folder);
    return 0;
}

static int remove_folder(void **state) { return rmdir(folder); }

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_socket_mode),
        TEST(test_old_socket_is_replaced),
        TEST(test_client_calls),
        TEST(test_client_question_too_large),
        TEST(test_events),
        TEST(test_client_not_connected),
        TEST(test_client_reconnects),
        TEST(test_client_freed_inside_answer),
        TEST(test_orphaned_request),
        TEST(test_on_close),
        TEST(test_too_many_pending),
        TEST(test_client_too_many_pending),
        TEST(test_oversize_line),
        TEST(test_nonsense_lines),
        TEST(test_line_in_pieces),
        TEST(test_too_many_connections),
        TEST(test_subscriber_that_does_not_read),
        TEST(test_single_call),
        TEST(test_single_call_without_daemon),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

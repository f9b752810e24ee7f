/* What people ask for: start, stop and remove a guest; each is answered exactly once. */
#include <string.h>

#include "vmha/vmha_core_internal.h"

static struct vmha_guest *guest_named(struct vmha_core *core, const char *name)
{
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
        if (core->guests[i].used && name[0] && !strcmp(core->guests[i].name, name))
            return &core->guests[i];
    return NULL;
}

/* A command that cannot be begun is answered at once. */
static void refuse_start(struct vmha_core *core, struct vmha_guest *guest)
{
    if (rules_is_here(guest) || guest->life == VMHA_CLAIMING || guest->record.state == RECORD_RUNNING)
        rules_answer(core, guest, "running", "guest '%s' is %s on node %s", guest->name, vmha_core_state_name(guest),
                     vmha_core_node_name(core, guest));
    else if (guest->life == VMHA_UNKNOWN)
        rules_answer(core, guest, "unavailable", "guest '%s': the hypervisor of node %s does not answer; look at "
                     "'systemctl status libvirtd'", guest->name, core->self_name);
    else if (!guest->view_known || !guest->view.local)
        rules_answer(core, guest, "not_here", "guest '%s': group '%s' is not served from node %s; start it on node %s",
                     guest->name, guest->view.name, core->self_name, core->peer_name);
    else
        memset(guest->crashes_ms, 0, sizeof guest->crashes_ms);
}

static void refuse_remove(struct vmha_core *core, struct vmha_guest *guest)
{
    if (rules_is_here(guest) || guest->life == VMHA_CLAIMING || guest->record.state == RECORD_RUNNING ||
        !id_is_null(&guest->record.node))
        rules_answer(core, guest, "running", "guest '%s' is %s on node %s; stop it first", guest->name,
                     vmha_core_state_name(guest), vmha_core_node_name(core, guest));
}

static void replace_older(struct vmha_core *core, struct vmha_guest *guest, enum vmha_command command, bool force)
{
    if (command != VMHA_COMMAND_STOP)
        return;
    if (guest->command == VMHA_COMMAND_START || (guest->command == VMHA_COMMAND_STOP && force))
        rules_answer(core, guest, "replaced", "guest '%s': a stop was asked after this", guest->name);
}

void commands_ask(struct vmha_core *core, const struct vmha_event *event, enum vmha_command command)
{
    struct vmha_guest *guest = guest_named(core, event->name);
    struct vmha_guest nobody = {.command = command, .token = event->token};

    if (!core->storage_up) {
        rules_answer(core, &nobody, "unavailable", "guest '%s': hci-storaged on node %s does not answer; look at "
                     "'systemctl status hci-storaged'", event->name, core->self_name);
        return;
    }
    if (!guest || !guest->meta_known || !guest->defined) {
        rules_answer(core, &nobody, "not_found", "guest '%s' does not exist; 'hcictl vm list' shows all", event->name);
        return;
    }
    replace_older(core, guest, command, event->force);
    if (guest->command != VMHA_COMMAND_NONE) {
        rules_answer(core, &nobody, "busy", "guest '%s' is being changed; try again", event->name);
        return;
    }
    guest->command = command;
    guest->token = event->token;
    guest->command_force = event->force;
    if (command == VMHA_COMMAND_START)
        refuse_start(core, guest);
    else if (command == VMHA_COMMAND_REMOVE)
        refuse_remove(core, guest);
}

/* A stop changes the record first, so that nobody restarts what goes down. */
static void decide_stop(struct vmha_core *core, struct vmha_guest *guest)
{
    bool sharper = guest->command_force && !guest->record.force && rules_is_here(guest);

    if (guest->record.state == RECORD_RUNNING || (guest->record.state == RECORD_STOPPED && sharper)) {
        struct record record = rules_next_record(guest, RECORD_STOPPED);
        record.force = guest->command_force;
        if (guest->life == VMHA_ABSENT && id_equal(&record.node, &core->self))
            record.node = (struct id){0};
        rules_swap(core, guest, VMHA_SWAP_STOP, &record);
    } else if (guest->life == VMHA_ABSENT || (!rules_is_here(guest) && !id_equal(&guest->record.node, &core->self))) {
        if (id_equal(&guest->record.node, &core->peer))
            rules_answer(core, guest, NULL, "guest '%s' is being stopped on node %s", guest->name, core->peer_name);
        else
            rules_answer(core, guest, NULL, "guest '%s' is stopped", guest->name);
    }
}

void commands_decide(struct vmha_core *core, struct vmha_guest *guest)
{
    if (guest->command == VMHA_COMMAND_NONE || guest->swap != VMHA_SWAP_NONE || !guest->meta_known)
        return;
    if (!guest->defined && !rules_is_here(guest))
        rules_answer(core, guest, "not_found", "guest '%s' was removed", guest->name);
    else if (guest->command == VMHA_COMMAND_STOP && core->storage_up)
        decide_stop(core, guest);
    else if (guest->command == VMHA_COMMAND_START && guest->life == VMHA_RUNNING)
        rules_answer(core, guest, NULL, "guest '%s' runs on node %s", guest->name, core->self_name);
    else if (guest->command == VMHA_COMMAND_START && guest->life == VMHA_ABSENT)
        refuse_start(core, guest); /* started elsewhere meanwhile */
    else if (guest->command == VMHA_COMMAND_REMOVE)
        refuse_remove(core, guest);
}

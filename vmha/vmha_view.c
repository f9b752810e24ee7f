/* What others may look at in the core: finding guests and naming their state. */
#include <string.h>

#include "vmha/vmha_core.h"
#include "vmha/vmha_core_internal.h"

const struct vmha_guest *vmha_core_by_group(const struct vmha_core *core, const struct id *group)
{
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
        if (core->guests[i].used && id_equal(&core->guests[i].group, group))
            return &core->guests[i];
    return NULL;
}

const struct vmha_guest *vmha_core_by_name(const struct vmha_core *core, const char *name)
{
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
        if (core->guests[i].used && name[0] && !strcmp(core->guests[i].name, name))
            return &core->guests[i];
    return NULL;
}

bool vmha_core_registers(const struct vmha_guest *guest)
{
    return guest->used && guest->registered;
}

const char *vmha_core_state_name(const struct vmha_guest *guest)
{
    if (rules_is_here(guest) || guest->life == VMHA_CLAIMING)
        return fsm_name(&vmha_life_table, guest->life);
    if (guest->life == VMHA_ABSENT && guest->record.state == RECORD_RUNNING && guest->published_down)
        return "down"; /* its record names this node, nothing runs here yet */
    return record_state_name(guest->record.state);
}

const char *vmha_core_node_name(const struct vmha_core *core, const struct vmha_guest *guest)
{
    if (rules_is_here(guest) || guest->life == VMHA_CLAIMING || id_equal(&guest->record.node, &core->self))
        return core->self_name;
    return id_equal(&guest->record.node, &core->peer) ? core->peer_name : "";
}

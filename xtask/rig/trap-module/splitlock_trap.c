// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/splitlock_trap: makes a kernel handle a split or bus lock on a CPU that detects neither.
 *
 * Only for the test VMs of splitlock-agent. QEMU's emulation raises no #AC and no bus-lock #DB, so
 * this calls, for the task that does the ioctl, the functions that their handlers call:
 *
 *   SPLITLOCK_TRAP_USER   handle_user_split_lock(), and where it refuses, the signal that
 *                         exc_alignment_check() then sends (arch/x86/kernel/traps.c)
 *   SPLITLOCK_TRAP_GUEST  handle_guest_split_lock(), as KVM does inside an ioctl
 *   SPLITLOCK_TRAP_BUS    handle_bus_lock(), as exc_debug() does; -EOPNOTSUPP before 5.13
 *   SPLITLOCK_TRAP_SET_MODE, SPLITLOCK_TRAP_GET_MODE
 *                         sld_state, which the kernel sets only while it boots; -EOPNOTSUPP for
 *                         a ratelimit before 5.14
 *   SPLITLOCK_TRAP_SWAP_FLAGS
 *                         which of the flags that belong to it /proc/cpuinfo shows;
 *                         -EOPNOTSUPP for bus_lock_detect before 5.13
 *   mmap()                nothing, slowly: the caller's address space is locked meanwhile
 *
 * What these functions print, how long they sleep and what they return is the kernel's own doing.
 * They are not exported to modules like this one; kallsyms tells their addresses.
 *
 * They are called through pointers. With IBT in force that is a #CP, as the kernel seals functions
 * that it never calls so; QEMU's emulation has no IBT, and elsewhere "ibt=off" helps.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bitops.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/errno.h>
#include <linux/fs.h>
#include <linux/ioctl.h>
#include <linux/jiffies.h>
#include <linux/kprobes.h>
#include <linux/ktime.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/ratelimit.h>
#include <linux/sched/signal.h>
#include <linux/types.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <asm/cpufeatures.h>
#include <asm/processor.h>
#include <asm/processor-flags.h>
#include <asm/ptrace.h>
#include <asm/trapnr.h>

/*
 * The interface. The other side is splitlock-agent/tests/real_events/events/trap_module/device.rs.
 */

struct splitlock_trap_call {
	__u64 ip;		/* in: of the locked instruction; for BUS of the one after it */
	__u64 flags;		/* in: EFLAGS bits to add; USER and BUS */
	__u64 repeat;		/* in: how often; 0 asks whether this kernel can */
	__u64 made;		/* out: fewer where a signal is pending, as two would merge */
	__u64 returned_true;	/* out: of those; 0 for BUS, which returns nothing */
	__u64 nanoseconds;	/* out: from the calls to their returns */
};

/* enum split_lock_detect_state, whose order has been the same since 5.7 */
enum {
	MODE_OFF,
	MODE_WARN,
	MODE_FATAL,
	MODE_RATELIMIT,		/* from 5.14 on */
};

struct splitlock_trap_mode {
	__u32 mode;
	__u32 per_second;	/* 1 to 1000 with MODE_RATELIMIT, else 0 */
};

/* Set: shown. */
#define FLAG_SPLIT_LOCK_DETECT	0x1u
#define FLAG_BUS_LOCK_DETECT	0x2u

#define SPLITLOCK_TRAP_USER	_IOWR('l', 0, struct splitlock_trap_call)
#define SPLITLOCK_TRAP_GUEST	_IOWR('l', 1, struct splitlock_trap_call)
#define SPLITLOCK_TRAP_BUS	_IOWR('l', 2, struct splitlock_trap_call)
#define SPLITLOCK_TRAP_SET_MODE	_IOW('l', 3, struct splitlock_trap_mode)
#define SPLITLOCK_TRAP_GET_MODE	_IOR('l', 4, struct splitlock_trap_mode)
#define SPLITLOCK_TRAP_SWAP_FLAGS _IOWR('l', 5, __u32)	/* out: the former ones */

/*
 * The kernel's symbols. Those that an older kernel lacks are NULL.
 */

static bool (*k_handle_user_split_lock)(struct pt_regs *regs, long error_code);
static bool (*k_handle_guest_split_lock)(unsigned long ip);
static void (*k_handle_bus_lock)(struct pt_regs *regs);
static void (*k_do_trap)(int trapnr, int signr, char *str, struct pt_regs *regs,
			 long error_code, int sicode, void __user *addr);
static unsigned int *k_sld_state;
static struct ratelimit_state *k_bld_ratelimit;

static const struct {
	const char *name;
	void *pointer;
	bool required;
} symbols[] = {
	{ "handle_user_split_lock", &k_handle_user_split_lock, true },
	{ "handle_guest_split_lock", &k_handle_guest_split_lock, true },
	{ "handle_bus_lock", &k_handle_bus_lock },
	{ "do_trap", &k_do_trap, true },
	{ "sld_state", &k_sld_state, true },
	{ "bld_ratelimit", &k_bld_ratelimit },
};

/* kallsyms_lookup_name() has not been exported since 5.7, but a probe may be set on it. */
static int find_symbols(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	unsigned long (*lookup)(const char *name);
	int i, error;

	error = register_kprobe(&probe);
	if (error) {
		pr_err("no probe on %s: %d\n", probe.symbol_name, error);
		return error;
	}
	lookup = (void *)probe.addr;
	unregister_kprobe(&probe);

	for (i = 0; i < ARRAY_SIZE(symbols); i++) {
		unsigned long address = lookup(symbols[i].name);

		if (!address && symbols[i].required) {
			pr_err("%s is not in kallsyms\n", symbols[i].name);
			return -ENOENT;
		}
		*(unsigned long *)symbols[i].pointer = address;
	}
	return 0;
}

/*
 * The traps
 */

/* As exc_alignment_check() for user mode, without the die chain. */
static bool user_trap(struct pt_regs *regs)
{
	if (k_handle_user_split_lock(regs, 0))
		return true;
	k_do_trap(X86_TRAP_AC, SIGBUS, "alignment check", regs, 0, BUS_ADRALN, NULL);
	return false;
}

static bool one_trap(unsigned int command, const struct splitlock_trap_call *call)
{
	struct pt_regs *regs = current_pt_regs();
	const struct pt_regs saved = *regs;
	bool result = false;

	if (command == SPLITLOCK_TRAP_GUEST)
		return k_handle_guest_split_lock(call->ip);

	/* An exception's entry code puts -1 where a system call's has its number. */
	regs->orig_ax = -1;
	regs->ip = call->ip;
	regs->flags |= call->flags;
	if (command == SPLITLOCK_TRAP_USER)
		result = user_trap(regs);
	else
		k_handle_bus_lock(regs);
	regs->orig_ax = saved.orig_ax;
	regs->ip = saved.ip;
	regs->flags = saved.flags;
	return result;
}

static long make_traps(unsigned int command, void __user *argument)
{
	struct splitlock_trap_call call;

	if (copy_from_user(&call, argument, sizeof(call)))
		return -EFAULT;
	if (call.flags & ~(__u64)X86_EFLAGS_AC)
		return -EINVAL;
	if (command == SPLITLOCK_TRAP_BUS && !k_handle_bus_lock)
		return -EOPNOTSUPP;

	call.made = 0;
	call.returned_true = 0;
	call.nanoseconds = 0;
	while (call.made < call.repeat) {
		u64 start = ktime_get_ns();
		bool result = one_trap(command, &call);

		call.nanoseconds += ktime_get_ns() - start;
		call.returned_true += result;
		call.made++;
		if (signal_pending(current))
			break;
		cond_resched();
	}
	return copy_to_user(argument, &call, sizeof(call)) ? -EFAULT : 0;
}

/*
 * The mode
 */

static DEFINE_MUTEX(mode_lock);

/*
 * sld_state is __ro_after_init. A second, writable mapping of its page leaves the kernel's own as
 * it is; clearing CR0.WP instead faults where CR4.CET is set.
 */
static int write_sld_state(unsigned int state)
{
	struct page *page = pfn_to_page(__pa_symbol(k_sld_state) >> PAGE_SHIFT);
	void *alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

	if (!alias)
		return -ENOMEM;
	WRITE_ONCE(*(unsigned int *)(alias + offset_in_page(k_sld_state)), state);
	vunmap(alias);
	return 0;
}

static long set_mode(const void __user *argument)
{
	struct splitlock_trap_mode mode;
	int error;

	if (copy_from_user(&mode, argument, sizeof(mode)))
		return -EFAULT;
	switch (mode.mode) {
	case MODE_OFF:
	case MODE_WARN:
	case MODE_FATAL:
		if (mode.per_second)
			return -EINVAL;
		break;
	case MODE_RATELIMIT:
		if (!k_bld_ratelimit)
			return -EOPNOTSUPP;
		if (mode.per_second < 1 || mode.per_second > 1000)
			return -EINVAL;
		break;
	default:
		return -EINVAL;
	}

	mutex_lock(&mode_lock);
	if (mode.mode == MODE_RATELIMIT) {
		/* As match_option() does. No task may be in handle_bus_lock(). */
		ratelimit_state_init(k_bld_ratelimit, HZ, mode.per_second);
		ratelimit_set_flags(k_bld_ratelimit, RATELIMIT_MSG_ON_RELEASE);
	}
	error = write_sld_state(mode.mode);
	mutex_unlock(&mode_lock);
	return error;
}

static long get_mode(void __user *argument)
{
	struct splitlock_trap_mode mode = {};

	mutex_lock(&mode_lock);
	mode.mode = READ_ONCE(*k_sld_state);
	if (mode.mode == MODE_RATELIMIT)
		mode.per_second = k_bld_ratelimit->burst;
	mutex_unlock(&mode_lock);
	return copy_to_user(argument, &mode, sizeof(mode)) ? -EFAULT : 0;
}

/*
 * The CPU's flags. Those of each CPU are only shown: what the kernel does goes by boot_cpu_data,
 * and it looked at that when it booted.
 */

static const struct {
	u32 flag;
	unsigned int feature;
} features[] = {
	{ FLAG_SPLIT_LOCK_DETECT, X86_FEATURE_SPLIT_LOCK_DETECT },
#ifdef X86_FEATURE_BUS_LOCK_DETECT
	{ FLAG_BUS_LOCK_DETECT, X86_FEATURE_BUS_LOCK_DETECT },
#endif
};

static long swap_flags(void __user *argument)
{
	u32 wanted, known = 0, former = 0;
	int i, cpu;

	if (copy_from_user(&wanted, argument, sizeof(wanted)))
		return -EFAULT;
	for (i = 0; i < ARRAY_SIZE(features); i++)
		known |= features[i].flag;
	if (wanted & ~known)
		return -EOPNOTSUPP;

	mutex_lock(&mode_lock);
	for_each_possible_cpu(cpu) {
		unsigned long *shown = (unsigned long *)cpu_data(cpu).x86_capability;

		for (i = 0; i < ARRAY_SIZE(features); i++) {
			if (test_bit(features[i].feature, shown))
				former |= features[i].flag;
			if (wanted & features[i].flag)
				set_bit(features[i].feature, shown);
			else
				clear_bit(features[i].feature, shown);
		}
	}
	mutex_unlock(&mode_lock);
	return copy_to_user(argument, &former, sizeof(former)) ? -EFAULT : 0;
}

/*
 * The device
 */

static long splitlock_trap_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	void __user *pointer = (void __user *)argument;

	switch (command) {
	case SPLITLOCK_TRAP_USER:
	case SPLITLOCK_TRAP_GUEST:
	case SPLITLOCK_TRAP_BUS:
		return make_traps(command, pointer);
	case SPLITLOCK_TRAP_SET_MODE:
		return set_mode(pointer);
	case SPLITLOCK_TRAP_GET_MODE:
		return get_mode(pointer);
	case SPLITLOCK_TRAP_SWAP_FLAGS:
		return swap_flags(pointer);
	default:
		return -ENOTTY;
	}
}

/*
 * As a file system or a driver that is slow to map a file: mmap_region() (mm/mmap.c, later mm/vma.c)
 * holds the lock of the address space for writing, and /proc/PID/cmdline waits for it. The offset's
 * pages are the milliseconds. Nothing is mapped in the end.
 */
static int splitlock_trap_mmap(struct file *file, struct vm_area_struct *vma)
{
	msleep_interruptible(vma->vm_pgoff);
	return -ENODEV;
}

static const struct file_operations splitlock_trap_operations = {
	.owner = THIS_MODULE,
	.mmap = splitlock_trap_mmap,
	.unlocked_ioctl = splitlock_trap_ioctl,
};

static struct miscdevice splitlock_trap_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "splitlock_trap",
	.fops = &splitlock_trap_operations,
	.mode = 0600,
};

static int __init splitlock_trap_init(void)
{
	int error = find_symbols();

	return error ? error : misc_register(&splitlock_trap_device);
}
module_init(splitlock_trap_init);

static void __exit splitlock_trap_exit(void)
{
	misc_deregister(&splitlock_trap_device);
}
module_exit(splitlock_trap_exit);

MODULE_DESCRIPTION("Makes the kernel's own split-lock and bus-lock code run (splitlock-agent's test VMs)");
MODULE_LICENSE("GPL");

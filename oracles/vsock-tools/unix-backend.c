/*
 * Lets vsock_test and vsock_perf, programs of the Linux sources that know AF_VSOCK alone, be the parent of an enclave whose
 * vsock ends in Unix sockets. They are linked with `-Wl,--wrap=`, so that the calls below come here first; their sources stay
 * as they are.
 *
 *   connect to a port          connect to $VSOCK_SOCKET, write "CONNECT <port>\n", read "OK <port>\n"
 *   bind to a port             bind to $VSOCK_SOCKET_<port>; closing that socket removes the name
 *   accept                     the caller's address is that of some vsock socket: a Unix socket does not know its port
 *   set the buffer's size      nothing: that is a promise of credit to a vsock peer, and there is none
 *
 * Calls on sockets of other families pass through, as does everything else that is done to these.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

int __real_socket(int domain, int type, int protocol);
int __real_bind(int fd, const struct sockaddr *address, socklen_t length);
int __real_connect(int fd, const struct sockaddr *address, socklen_t length);
int __real_accept(int fd, struct sockaddr *address, socklen_t *length);
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t length);
int __real_close(int fd);

/* Names of listening sockets, by descriptor. */
#define MOST_DESCRIPTORS 256
static char *names[MOST_DESCRIPTORS];

/* "CONNECT 4294967295\n" */
#define LONGEST_LINE 32

static int is_vsock(const struct sockaddr *address)
{
	return address && address->sa_family == AF_VSOCK;
}

static unsigned int port_of(const struct sockaddr *address)
{
	return ((const struct sockaddr_vm *)address)->svm_port;
}

/* $VSOCK_SOCKET with something behind it. */
static struct sockaddr_un socket_named(const char *suffix)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = getenv("VSOCK_SOCKET");
	int length = path ? snprintf(address.sun_path, sizeof(address.sun_path), "%s%s", path, suffix) : -1;

	if (length < 0 || (size_t)length >= sizeof(address.sun_path)) {
		fprintf(stderr, "VSOCK_SOCKET must name the socket of an enclave\n");
		exit(EXIT_FAILURE);
	}
	return address;
}

int __wrap_socket(int domain, int type, int protocol)
{
	return __real_socket(domain == AF_VSOCK ? AF_UNIX : domain, type, protocol);
}

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t length)
{
	struct sockaddr_un name;
	char suffix[LONGEST_LINE];

	if (!is_vsock(address))
		return __real_bind(fd, address, length);
	if (fd >= MOST_DESCRIPTORS) {
		errno = ENOBUFS;
		return -1;
	}
	snprintf(suffix, sizeof(suffix), "_%u", port_of(address));
	name = socket_named(suffix);
	if (__real_bind(fd, (struct sockaddr *)&name, sizeof(name)) < 0)
		return -1;
	names[fd] = strdup(name.sun_path);
	return 0;
}

int __wrap_accept(int fd, struct sockaddr *address, socklen_t *length)
{
	struct sockaddr_vm caller = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = VMADDR_PORT_ANY };
	int accepted;

	if (fd < 0 || fd >= MOST_DESCRIPTORS || !names[fd])
		return __real_accept(fd, address, length);
	accepted = __real_accept(fd, NULL, NULL);
	if (accepted >= 0 && address && length) {
		memcpy(address, &caller, *length < sizeof(caller) ? *length : sizeof(caller));
		*length = sizeof(caller);
	}
	return accepted;
}

/* Reads the answer to CONNECT, byte by byte because what follows it is not ours to take. */
static int expect_ok(int fd)
{
	char line[LONGEST_LINE] = "";
	size_t length = 0;

	while (length < sizeof(line) - 1) {
		ssize_t got = read(fd, line + length, 1);

		if (got < 0)
			return -1;
		/* The enclave has refused, which AF_VSOCK tells by this number. */
		if (got == 0)
			break;
		if (line[length++] == '\n' && strncmp(line, "OK ", 3) == 0)
			return 0;
	}
	errno = ECONNRESET;
	return -1;
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length)
{
	struct sockaddr_un name;
	char line[LONGEST_LINE];
	int to_send;

	if (!is_vsock(address))
		return __real_connect(fd, address, length);
	name = socket_named("");
	if (__real_connect(fd, (struct sockaddr *)&name, sizeof(name)) < 0)
		return -1;
	to_send = snprintf(line, sizeof(line), "CONNECT %u\n", port_of(address));
	if (write(fd, line, to_send) != to_send)
		return -1;
	return expect_ok(fd);
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
	return level == AF_VSOCK ? 0 : __real_setsockopt(fd, level, name, value, length);
}

int __wrap_close(int fd)
{
	if (fd >= 0 && fd < MOST_DESCRIPTORS && names[fd]) {
		unlink(names[fd]);
		free(names[fd]);
		names[fd] = NULL;
	}
	return __real_close(fd);
}

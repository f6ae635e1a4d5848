package lab

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"gprovision/forge/tool"
)

// Packages are the Debian packages that a virtual unit and what it boots are made with.
func Packages() []string {
	return []string{"qemu-system-x86", "qemu-utils", "ovmf", "ipxe", "ipxe-qemu", "mmdebstrap", "xz-utils", "tar", "ca-certificates"}
}

// Missing returns those packages that are not installed.
func Missing(ctx context.Context, log *slog.Logger, packages []string) ([]string, error) {
	// dpkg-query ends with status 1 when it does not know one of them, and tells of the others all the same.
	b := &strings.Builder{}
	_ = tool.Run(ctx, log, tool.Command{Name: "dpkg-query", Package: "dpkg", Stdout: b,
		Args: append([]string{"--show", "--showformat=${binary:Package} ${db:Status-Status}\n"}, packages...)})
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("look for packages: %w", err)
	}
	have := map[string]bool{}
	for line := range strings.Lines(b.String()) {
		name, status, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, _, _ = strings.Cut(name, ":") // without the architecture
		have[name] = have[name] || status == "installed"
	}
	var out []string
	for _, p := range packages {
		if !have[p] {
			out = append(out, p)
		}
	}
	return out, nil
}

// Install installs Debian packages. It needs root.
func Install(ctx context.Context, log *slog.Logger, packages []string) error {
	for _, args := range [][]string{{"update", "-q"}, append([]string{"install", "-y", "-q", "--no-install-recommends"}, packages...)} {
		c := tool.Command{Name: "apt-get", Package: "apt", Args: args, Env: []string{"DEBIAN_FRONTEND=noninteractive"}}
		if err := tool.Run(ctx, log, c); err != nil {
			return fmt.Errorf("install packages: %w", err)
		}
	}
	return nil
}

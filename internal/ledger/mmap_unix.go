// SPDX-License-Identifier: Apache-2.0

//go:build unix

package ledger

import (
	"os"
	"syscall"
)

func mapFile(f *os.File, off int64, size int) ([]byte, error) {
	return syscall.Mmap(int(f.Fd()), off, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
}

func unmap(b []byte) error { return syscall.Munmap(b) }

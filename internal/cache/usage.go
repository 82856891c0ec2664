// SPDX-License-Identifier: Apache-2.0

package cache

// Usage tells how much is kept. It may be some moments old.
func (c *Cache) Usage() Usage { return c.store.Usage() }

variable "project" {
  type        = string
  description = "Project id of everything made here."
}

variable "region" {
  type        = string
  description = "Region of the job, the bucket, the dataset and the images."
}

variable "name" {
  type        = string
  default     = "inference"
  description = "Beginning of every name."
  validation {
    condition     = can(regex("^[a-z][-a-z0-9]{1,19}[a-z0-9]$", var.name))
    error_message = "Use 3 to 21 lower-case letters, digits and dashes: service accounts allow no more."
  }
}

variable "retention_days" {
  type        = number
  default     = 7
  description = "How long unacknowledged messages are kept."
  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 31
    error_message = "Pub/Sub keeps messages for 1 to 31 days."
  }
}

variable "audit_expiration_days" {
  type        = number
  default     = null
  description = "When the audit table's partitions are deleted; null keeps them."
}

variable "kms_key" {
  type        = string
  default     = null
  description = "Cloud KMS key (projects/…/cryptoKeys/…) for topics, table, bucket, images, secret and workers; null uses Google's."
}

variable "hf_token" {
  type        = bool
  default     = false
  description = "Whether to make a secret for a Hugging Face token; its value is added by hand and never in Terraform's state."
}

variable "private_network" {
  type        = bool
  default     = false
  description = "Whether workers run without public addresses in a network of their own."
}

variable "subnet_range" {
  type        = string
  default     = "10.128.0.0/24"
  description = "Addresses of the private network's workers."
}

variable "hub_access" {
  type        = bool
  default     = false
  description = "Whether private workers reach the internet through Cloud NAT: needed to fetch a hub model at start, or to call --endpoint."
}

variable "github_repository" {
  type        = string
  default     = null
  description = "OWNER/NAME whose main branch may build and launch, through Workload Identity Federation; null lets nobody."
}

variable "launch_members" {
  type        = list(string)
  default     = []
  description = "Who may act as the launcher, such as user:ada@example.com."
}

variable "notification_channels" {
  type        = list(string)
  default     = []
  description = "Where alerts go: names of monitoring notification channels."
}

variable "job" {
  type = object({
    template            = string
    image               = string
    flags               = map(string)
    machine_type        = optional(string, "n2-standard-4")
    max_workers         = optional(number, 4)
    accelerator         = optional(string)
    additional_services = optional(list(string), [])
  })
  default     = null
  description = "The job: the container spec and the image that deploy.sh build made, and the flags beside those that name resources; null makes all but the job."
}
